package torture

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that is killed and started again.
type process struct {
	name  string
	make  func() *exec.Cmd
	env   []string // besides HOME and PATH
	ready string   // what it says when it does its work

	doing sync.Mutex // held while it is started or killed

	mu      sync.Mutex
	run     *run
	kills   int
	outages []outage // the last one is open (to is 0) while the program is not ready
	tail    []string // of what it said
	died    []string // ends that nobody asked for
	refused int      // starts that a failing disk did not let be; tried again, as a service manager does
	trouble []int64  // when it has said that its disk is full, or fails
	full    int      // how often it has said that its disk is full
	failing int      // how often, that fsync fails
}

// run is one life of a process.
type run struct {
	cmd   *exec.Cmd
	asked bool // to end
	ended chan struct{}
}

func (p *process) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tail = append(p.tail, line); len(p.tail) > 60 {
		p.tail = p.tail[1:]
	}
	switch {
	case strings.Contains(line, unix.ENOSPC.Error()):
		p.full++
		p.trouble = append(p.trouble, time.Now().UnixNano())
	case strings.Contains(line, unix.EIO.Error()):
		p.failing++
		p.trouble = append(p.trouble, time.Now().UnixNano())
	}
	if n := len(p.outages); n > 0 && p.outages[n-1].to == 0 && strings.Contains(line, p.ready) {
		p.outages[n-1].to = time.Now().UnixNano()
	}
}

// start starts it, and does not wait until it is ready.
func (p *process) start() error {
	p.doing.Lock()
	defer p.doing.Unlock()
	return p.begin()
}

func (p *process) begin() error {
	p.mu.Lock()
	if n := len(p.outages); n == 0 || p.outages[n-1].to != 0 {
		p.outages = append(p.outages, outage{from: time.Now().UnixNano()})
	}
	p.mu.Unlock()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := p.make()
	cmd.Env = append([]string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH")}, p.env...)
	cmd.Stdout, cmd.Stderr = in, in
	// With the test, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	r := &run{cmd: cmd, ended: make(chan struct{})}
	p.mu.Lock()
	p.run = r
	p.mu.Unlock()
	go func() { // ends with the program; r.ended tells
		defer close(r.ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.note(lines.Text())
		}
		_, _ = io.Copy(io.Discard, out)
		out.Close()
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		last := ""
		if len(p.tail) > 0 {
			last = p.tail[len(p.tail)-1]
		}
		switch {
		case r.asked:
		case p.outages[len(p.outages)-1].to == 0 && (strings.Contains(last, unix.EIO.Error()) || strings.Contains(last, unix.ENOSPC.Error())):
			p.refused++
			time.AfterFunc(300*time.Millisecond, func() { p.again(r) })
		default:
			p.died = append(p.died, fmt.Sprintf("%s ended by itself: %v\n%s", p.name, err, strings.Join(p.tail, "\n")))
		}
	}()
	return nil
}

// again starts it after a run that ended by itself, unless it was killed or started since.
func (p *process) again(r *run) {
	p.doing.Lock()
	defer p.doing.Unlock()
	p.mu.Lock()
	wanted := p.run == r && !r.asked
	p.mu.Unlock()
	if !wanted {
		return
	}
	if err := p.begin(); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.died = append(p.died, err.Error())
	}
}

// kill ends it with SIGKILL, and waits until it is gone.
func (p *process) kill() {
	p.doing.Lock()
	defer p.doing.Unlock()
	p.mu.Lock()
	r := p.run
	if r == nil || r.asked {
		p.mu.Unlock()
		return
	}
	r.asked = true
	select {
	case <-r.ended: // by itself
	default:
		p.kills++
	}
	if n := len(p.outages); n > 0 && p.outages[n-1].to != 0 {
		p.outages = append(p.outages, outage{from: time.Now().UnixNano()})
	}
	p.mu.Unlock()
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// end ends it in order, and wants exit code 0.
func (p *process) end() error {
	p.mu.Lock()
	r := p.run
	if r == nil || r.asked {
		p.mu.Unlock()
		return nil
	}
	r.asked = true
	p.mu.Unlock()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(3 * time.Minute):
		_ = r.cmd.Process.Kill()
		<-r.ended
		return fmt.Errorf("%s did not end within three minutes of SIGTERM:\n%s", p.name, p.said())
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %d:\n%s", p.name, code, p.said())
	}
	return nil
}

// pid is 0 while it is away.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil || p.run.asked {
		return 0
	}
	return p.run.cmd.Process.Pid
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// watching waits until it is ready.
func (p *process) watching(ctx context.Context) error {
	for {
		p.mu.Lock()
		n := len(p.outages)
		ready, died := n > 0 && p.outages[n-1].to != 0, len(p.died) > 0
		p.mu.Unlock()
		switch {
		case ready:
			return nil
		case died:
			return fmt.Errorf("%s has ended", p.name)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w:\n%s", p.name, ctx.Err(), p.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// olderAggregator builds the aggregator of the version before, that of test/upgrade_test.go. ok is false where the repository
// does not have it.
func olderAggregator(t *testing.T) (path string, ok bool) {
	t.Helper()
	source, err := os.ReadFile("../upgrade_test.go")
	if err != nil {
		t.Fatal(err)
	}
	commit := regexp.MustCompile(`const olderCommit = "([0-9a-f]{40})"`).FindSubmatch(source)
	if commit == nil {
		t.Fatal("test/upgrade_test.go names no olderCommit")
	}
	dir := t.TempDir()
	git := exec.Command("sh", "-c", `git archive "$1" | tar -x -C "$2"`, "sh", string(commit[1]), dir)
	git.Dir = "../.."
	if err := git.Run(); err != nil || !fileExists(filepath.Join(dir, "go.mod")) {
		return "", false
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", "bin/", "./cmd/httpctl-aggregator")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build at commit %s: %v\n%s", commit[1], err, out)
	}
	return filepath.Join(dir, "bin", "httpctl-aggregator"), true
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// programs builds the programs of this tree.
func programs(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/httpctl-agent", "./cmd/httpctl-aggregator")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}
