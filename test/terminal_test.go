//go:build linux

package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a pseudo-terminal of 80x24.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// TestTerminalIsGivenBack: while a dashboard is redrawn, keys do not show; however it ends, the terminal is as it was.
func TestTerminalIsGivenBack(t *testing.T) {
	data := t.TempDir()
	center := launch(t, "httpctl-aggregator", "--config", write(t, "a.yaml", "timeout: 200ms\naggregator:\n  data: "+data+"\n  listen: []\n"))
	center.says(t, "serving")

	const enter, leave = "\x1b[?1049h", "\x1b[?1049l"
	for _, c := range []struct {
		name string
		end  func(p *os.Process, keys *os.File)
	}{
		{"q", func(_ *os.Process, keys *os.File) { _, _ = keys.WriteString("xyzq") }},
		{"Ctrl-C", func(_ *os.Process, keys *os.File) { _, _ = keys.WriteString("\x03") }},
		{"SIGTERM", func(p *os.Process, _ *os.File) { _ = p.Signal(syscall.SIGTERM) }},
		{"Ctrl-Z and back", func(p *os.Process, keys *os.File) {
			_, _ = keys.WriteString("\x1a")
			eventually(t, "Ctrl-Z stops it", func() error { return stateIs(p.Pid, "T") })
			if !echoes(t, keys) {
				t.Error("while it is stopped, the terminal does not echo")
			}
			_ = p.Signal(syscall.SIGCONT)
			eventually(t, "it takes the terminal again", func() error {
				if echoes(t, keys) {
					return fmt.Errorf("keys are echoed")
				}
				return nil
			})
			_, _ = keys.WriteString("q")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := openPTY(t)
			var out output
			go func() {
				buf := make([]byte, 4096)
				for {
					n, err := master.Read(buf)
					_, _ = out.Write(buf[:n])
					if err != nil {
						return // the test closes it
					}
				}
			}()
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program(t, "httpctl"), "dashboard", "--aggregator", "unix:"+data+"/httpctl.sock")
			cmd.Env = []string{"TERM=xterm", "LANG=C.UTF-8", "HOME=/nonexistent"}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			eventually(t, "the dashboard is drawn", func() error {
				if text := out.String(); !strings.Contains(text, enter) || !strings.Contains(text, "LEARNING") || echoes(t, slave) {
					return fmt.Errorf("so far: %q", text)
				}
				return nil
			})
			c.end(cmd.Process, master)
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				t.Fatalf("it does not end; screen %q", out.String())
			}
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if *before != *after {
				t.Errorf("the terminal's mode was %+v, is %+v", *before, *after)
			}
			eventually(t, "the screen is left", func() error {
				text := out.String()
				if n, m := strings.Count(text, enter), strings.Count(text, leave); n == 0 || n != m || strings.LastIndex(text, leave) < strings.LastIndex(text, enter) || strings.Contains(text[strings.LastIndex(text, leave):], "fleet") {
					return fmt.Errorf("entered %d times, left %d times: ends with %q", n, m, text[max(0, len(text)-40):])
				}
				for _, mode := range []string{"?25", "?2004"} { // cursor, pasting
					on, off := strings.LastIndex(text, "\x1b["+mode+"h"), strings.LastIndex(text, "\x1b["+mode+"l")
					if (on > off) != (mode == "?25") {
						return fmt.Errorf("mode %s is left as it was not found: ends with %q", mode, text[max(0, len(text)-80):])
					}
				}
				return nil
			})
			if strings.Contains(out.String(), "xyz") {
				t.Error("typed keys show on the screen")
			}
		})
	}
}

// echoes reports whether typed keys are shown.
func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// stateIs compares a process's state in proc(5).
func stateIs(pid int, want string) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	if !strings.HasPrefix(rest, want) {
		return fmt.Errorf("its state is %.1s", rest)
	}
	return nil
}
