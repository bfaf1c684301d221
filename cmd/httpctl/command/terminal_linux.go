package command

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// terminal is the terminal that a live dashboard is shown on and whose keys
// it reads. Keys are not echoed over the picture, q ends the dashboard, Ctrl-C
// stays a signal, Ctrl-Z gives the terminal back before it stops the process.
type terminal struct {
	fd     int
	before unix.Termios

	quit chan struct{} // closed when q was typed
	stop chan os.Signal
	wake [2]int // a pipe that ends the reader
	read sync.WaitGroup
}

// openTerminal returns the terminal that f is, or nil if it is none.
func openTerminal(f *os.File) *terminal {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil
	}
	t := &terminal{fd: fd, before: *before, quit: make(chan struct{}), stop: make(chan os.Signal, 1)}
	if err := unix.Pipe2(t.wake[:], unix.O_CLOEXEC); err != nil {
		return nil
	}
	return t
}

// Take takes the terminal over.
func (t *terminal) Take() {
	t.set()
	signal.Notify(t.stop, unix.SIGTSTP)
	t.read.Go(t.keys)
}

func (t *terminal) set() {
	mode := t.before
	mode.Lflag &^= unix.ECHO | unix.ICANON
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	mode.Cc[unix.VQUIT] = 0                            // Ctrl-\ would end the process without giving back the terminal
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &mode) // without it keys show, and nothing else
}

// Give gives the terminal back as it was. What was typed and not read is dropped.
func (t *terminal) Give() {
	signal.Stop(t.stop)
	_ = unix.Close(t.wake[1])
	t.read.Wait()
	_ = unix.Close(t.wake[0])
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETSF, &t.before)
}

// Quit is closed when q was typed.
func (t *terminal) Quit() <-chan struct{} { return t.quit }

// Stop receives when Ctrl-Z was typed; call Suspend then.
func (t *terminal) Stop() <-chan os.Signal { return t.stop }

// Suspend gives the terminal back, stops the process, and takes the terminal
// again when the process continues.
func (t *terminal) Suspend() {
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETSF, &t.before)
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, unix.SIGCONT)
	if unix.Kill(os.Getpid(), unix.SIGSTOP) == nil {
		<-goesOn // the process may run on for a moment
	}
	signal.Stop(goesOn)
	t.set()
}

// keys reads what is typed.
func (t *terminal) keys() {
	var typed [64]byte
	for {
		fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(t.fd, typed[:])
		if err != nil || n <= 0 {
			return
		}
		for _, key := range typed[:n] {
			if key == 'q' || key == 'Q' {
				close(t.quit)
				return
			}
		}
	}
}
