package test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what takes a moment on a machine that does nothing else.
const patience = 3 * time.Minute

// programsDir is where they are, once somebody asked for them; TestMain removes it.
var programsDir string

// programs compiles the programs once for all tests that share them.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "httpctl-programs-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, errors.New("go build: " + err.Error() + "\n" + string(out))
	}
	return dir, os.Chmod(dir, 0o755) // also for users without privileges
})

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{programsDir, collectorDir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// program returns the path of a compiled program.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// said is what a program that ended has said.
type said struct {
	code           int
	stdout, stderr string
}

// try runs a program to its end. Its environment has no settings of the caller.
func try(t *testing.T, change func(*exec.Cmd), args ...string) said {
	t.Helper()
	path := program(t, args[0]) // may have to be compiled first
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env = []string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if change != nil {
		change(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// background is a program that runs until it is ended.
type background struct {
	cmd   *exec.Cmd
	out   output
	ended chan struct{} // closed then
}

// output collects what a program says while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// launch starts a program; it is ended with the test, if it is still there.
func launch(t *testing.T, args ...string) *background {
	t.Helper()
	return launchCommand(t, exec.Command(program(t, args[0]), args[1:]...))
}

func launchCommand(t *testing.T, cmd *exec.Cmd, env ...string) *background {
	t.Helper()
	b := &background{cmd: cmd, ended: make(chan struct{})}
	b.cmd.Env = append([]string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH")}, env...)
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.ended)
		_ = b.cmd.Wait() // stop tells how it went
	}()
	t.Cleanup(func() { b.stop(t, syscall.SIGKILL) })
	return b
}

// stop sends a signal, waits, and returns the exit code, -1 if a signal ended it.
func (b *background) stop(t *testing.T, s syscall.Signal) int {
	t.Helper()
	select {
	case <-b.ended:
		return b.cmd.ProcessState.ExitCode()
	default:
	}
	_ = b.cmd.Process.Signal(s)
	select {
	case <-b.ended:
	case <-time.After(patience):
		_ = b.cmd.Process.Kill()
		<-b.ended
		t.Errorf("%s did not end within %v of %s:\n%s", strings.Join(b.cmd.Args, " "), patience, s, b.out.String())
	}
	return b.cmd.ProcessState.ExitCode()
}

// says waits until the program has said something.
func (b *background) says(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ended := false
		select {
		case <-b.ended:
			ended = true
		default:
		}
		switch {
		case strings.Contains(b.out.String(), text):
			return
		case ended:
			t.Fatalf("%s ended and did not say %q, but\n%s", strings.Join(b.cmd.Args, " "), text, b.out.String())
		case time.Now().After(deadline):
			t.Fatalf("%s did not say %q within %v, but\n%s", strings.Join(b.cmd.Args, " "), text, patience, b.out.String())
		}
	}
}

// write writes a file into a new directory and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
