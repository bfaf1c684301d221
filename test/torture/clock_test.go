package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// stepping builds the programs with a clock of their own that signals set: the same sources, but for three files that
// the compiler takes from elsewhere (go build -overlay). In the standard library's time.Now, and where packets get
// the kernel's time, an offset is added; SIGUSR1 makes it an hour more, SIGUSR2 an hour less. The kernel has no clock
// for a process alone (time namespaces leave the wall clock out), and that of this machine is for all.
func stepping(t *testing.T) (dir string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	replace := map[string]string{}
	patch := func(path string, pairs ...string) {
		t.Helper()
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(source)
		for i := 0; i < len(pairs); i += 2 {
			if strings.Count(text, pairs[i]) != 1 {
				t.Fatalf("%s has %q %d times, want once: this test has to follow it", path, pairs[i], strings.Count(text, pairs[i]))
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		replace[path] = to
	}
	patch(filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go"),
		"\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {", "\tsec, nsec, mono := runtimeNow()\n\tsec += TortureStep\n\tif mono == 0 {",
		"func Now() Time {", "var TortureStep int64\n\nfunc Now() Time {")
	patch(filepath.Join(module, "agent/capture/live_linux.go"),
		"p.Time = int64(h.Sec)*1e9 + int64(h.Nsec)", "p.Time = (int64(h.Sec)+time.TortureStep)*1e9 + int64(h.Nsec)")
	for _, name := range []string{"httpctl-agent", "httpctl-aggregator"} {
		patch(filepath.Join(module, "cmd", name, "main.go"), `import (
	"os"
`, `import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
`, "func main() {", `func main() {
	time.TortureStep, _ = strconv.ParseInt(os.Getenv("`+stepEnv+`"), 10, 64)
	set := make(chan os.Signal, 8)
	signal.Notify(set, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range set {
			if s == syscall.SIGUSR1 {
				time.TortureStep += 3600
			} else {
				time.TortureStep -= 3600
			}
		}
	}()
	`)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", dir+"/", "./cmd/httpctl-agent", "./cmd/httpctl-aggregator")
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build -overlay: %v\n%s", err, out)
	}
	return dir
}

// stepEnv is the offset, in seconds, at which a program with a clock of its own begins.
const stepEnv = "TORTURE_CLOCK"

// dial is the clock of a process, as the test has set it.
type dial struct {
	p     *process
	steps []step // by time
}

// step sets a clock by so much.
type step struct {
	at int64
	by int64
}

// What was sent so long before a clock was set may have been read after that, when its time is made (stepWaits:
// poll_timeout, and a busy machine), and what was sent so long after, before the program has the signal.
const (
	stepWaits = int64(time.Second)
	stepTakes = int64(200 * time.Millisecond)
)

// offset returns by how much the clock is wrong at a time, and how much else it may be.
func (d *dial) offset(t int64) (by, either int64) {
	for _, s := range d.steps {
		switch {
		case t >= s.at+stepTakes:
			by += s.by
		case t >= s.at-stepWaits:
			either = s.by
		}
	}
	return by, either
}

func (d *dial) set(hours int64) error {
	pid := d.p.pid()
	if pid == 0 {
		return fmt.Errorf("%s is away", d.p.name)
	}
	signal := unix.SIGUSR1
	if hours < 0 {
		signal = unix.SIGUSR2
	}
	d.steps = append(d.steps, step{at: time.Now().UnixNano(), by: hours * int64(time.Hour)})
	total := int64(0)
	for _, s := range d.steps {
		total += s.by
	}
	d.p.env = []string{fmt.Sprintf("%s=%d", stepEnv, total/int64(time.Second))}
	return unix.Kill(pid, signal)
}

// TestTortureClock sets the clocks of agents and of their aggregator an hour forward and back, and kills
// them in between, while requests pass. By the clock of its host each request is stored once or
// within what a kill took; a clock that is set takes none.
func TestTortureClock(t *testing.T) {
	if os.Getenv(minutesEnv) == "" {
		t.Skipf("compiles the standard library anew; runs in `make torture` (%s)", minutesEnv)
	}
	f := newFleet(t, 2, time.Minute, false)
	bin := stepping(t)
	var clocks []*dial
	for _, p := range f.processes() {
		before := p.make
		p.make = func() *exec.Cmd {
			cmd := before()
			for i, a := range cmd.Args {
				if name := filepath.Base(a); i > 0 && (name == "httpctl-agent" || name == "httpctl-aggregator") {
					cmd.Args[i] = filepath.Join(bin, name)
				}
			}
			return cmd
		}
		clocks = append(clocks, &dial{p: p})
	}
	// What is done to a process: hours by which its clock is set, 0 for a kill.
	scripts := [][]int64{{0, 1, 0, -1, -1, 0, 1}, {1, 0, -1, -1, 0, 1}, {-1, 1, 0, 1, 0, -1}} // of the aggregator, and of each agent
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for _, p := range f.processes() {
		if err := errors.Join(p.start(), p.watching(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	f.begin = time.Now()
	stop := make(chan struct{})
	var playing, acting sync.WaitGroup
	for h, w := range f.wires {
		playing.Go(func() {
			if err := w.play(stop, width, h*10_000_000, perSecond); err != nil {
				t.Errorf("host-%d: %v", h, err)
			}
		})
	}
	for i, script := range scripts {
		acting.Go(func() {
			p := clocks[i].p
			for n, hours := range script {
				time.Sleep(4*time.Second + time.Duration(i*370+n*130)*time.Millisecond)
				done := fault{at: time.Now().UnixNano(), host: p.name, what: fmt.Sprintf("the clock of %s is set by %d h", p.name, hours)}
				if i == 0 {
					done.host = ""
				}
				var err error
				if hours != 0 {
					err = clocks[i].set(hours)
				} else {
					done.what = p.name + " is killed"
					p.kill()
					err = p.start()
				}
				if err != nil {
					t.Error(err)
				}
				done.end = time.Now().UnixNano()
				f.mu.Lock()
				f.done = append(f.done, done)
				f.mu.Unlock()
			}
		})
	}
	acting.Wait()
	time.Sleep(3 * time.Second)
	close(stop)
	playing.Wait()
	end := time.Now()
	settle, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := f.covered(settle, end); err != nil {
		t.Error(err)
	}
	steps, kills := 0, 0
	for _, d := range clocks {
		steps, kills = steps+len(d.steps), kills+d.p.kills
	}
	for _, p := range append(f.agents, f.aggregator) {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		for _, d := range p.died {
			t.Error(d)
		}
	}

	l := f.read(f.begin.Truncate(time.Minute).Add(-2*time.Hour), end.Add(2*time.Hour))
	for h, b := range l.books {
		d := clocks[h+1]
		b.outages = b.outages[1:]
		for i, o := range b.outages {
			by, _ := d.offset(o.from)
			b.outages[i] = outage{o.from + by, o.to + by}
		}
		for i, q := range b.sent {
			by, either := d.offset(q.before)
			b.sent[i].before, b.sent[i].after, b.sent[i].either = q.before+by, q.after+by, either
		}
		for _, s := range d.steps {
			if s.by > 0 {
				by, _ := d.offset(s.at)
				b.steps = append(b.steps, bucket.Span{From: s.at + by - l.width - l.lag, To: s.at + by + s.by + l.lag})
			}
		}
	}
	total, bad, wrong := l.audit()
	if text := l.text(bad, wrong); text != "" {
		for i, d := range clocks {
			t.Logf("clock of %s: %v", f.processes()[i].name, d.steps)
		}
		t.Errorf("the ledger does not hold\n%s", text)
	}
	t.Logf("clocks set %d times, %d kills; %d requests in %d intervals of the hosts: %d stored, %d within %d declared spans",
		steps, kills, total.oracle, total.intervals, total.stored, total.inside, total.spans)
	if total.stored < total.oracle*2/3 || total.stored == total.oracle {
		t.Errorf("this shows little: %+v", total)
	}
}
