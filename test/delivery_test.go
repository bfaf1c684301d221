package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestAggregatorRestarts stops and starts the aggregator four times while an
// agent delivers.
func TestAggregatorRestarts(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	file, want := traffic(t, 1, 7*time.Second, 80)
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), file)
	for range 4 {
		time.Sleep(1300 * time.Millisecond)
		c.stop()
		time.Sleep(100 * time.Millisecond)
		c.start()
	}
	c.settled("all is delivered after restarts", want)
	c.nothingUnobserved()
}

// TestAggregatorAway: an aggregator that is away for ten intervals, and at the
// agent's start, misses nothing.
func TestAggregatorAway(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	c.stop()
	file, want := traffic(t, 2, 12*time.Second, 40)
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), file)
	time.Sleep(10 * time.Second)
	c.start()
	c.settled("all is delivered after an absence", want)
	c.nothingUnobserved()
}

func (c *center) unobserved() (seconds uint64) {
	c.t.Helper()
	hosts, err := c.client.Hosts(c.t.Context(), client.Question{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range hosts {
		for _, n := range h.Counters {
			if n.Name == "unobserved_seconds" {
				seconds += n.Value
			}
		}
	}
	return seconds
}

func (c *center) nothingUnobserved() {
	c.t.Helper()
	if n := c.unobserved(); n != 0 {
		c.t.Errorf("%d s are declared unobserved, though the agent watched all the time", n)
	}
}

// TestAgentRestartsInOneInterval stops an agent in order and starts it again in the
// same interval of a minute: both halves of the interval are counted, and what lies
// between is declared.
func TestAgentRestartsInOneInterval(t *testing.T) {
	t.Parallel()
	c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) {
		s.DashboardBucketSize, s.AverageBucketSize = time.Minute, 2*time.Minute
		s.HostGoneAfter = 5 * time.Minute
	})
	state := stateDir(t)
	sum := newTruth()
	var stopped time.Time
	away := time.Duration(0)
	for seed := range uint64(3) {
		file, want := traffic(t, 3+seed, time.Second, 50)
		sum.add(want)
		cfg := agentConfig(c.address(), state, "web-1")
		cfg.Metrics = freePort(t)
		w := startWatcher(t, c.settings, cfg, file)
		if seed > 0 {
			away += time.Since(stopped)
		}
		showsMetric(t, cfg.Metrics, fmt.Sprintf("httpctl_agent_outcomes_total %d", want.requests))
		stopped = time.Now()
		w.stop()
		c.settled(fmt.Sprintf("run %d is delivered at the stop", seed), sum)
	}
	if n := c.unobserved(); n < 1 || n > uint64(away.Seconds())+2 {
		t.Errorf("%d s are declared unobserved, want the moments between the runs, of %v in all", n, away)
	}
	c.stop()
	c.stored(func(s *store.Slice) {
		if s.Buckets < 3 {
			t.Errorf("the interval has %d buckets, want one of each run", s.Buckets)
		}
	})
}

// stored shows the intervals of a stopped aggregator, host by host.
func (c *center) stored(f func(*store.Slice)) {
	c.t.Helper()
	db, err := bolt.Open(filepath.Join(c.cfg.Data, "httpctl.db"), bolt.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	now := time.Now()
	a, err := db.Query(context.Background(), store.Plan{Table: "section", By: []string{"section"}, From: now.Add(-time.Hour).UnixNano(), To: now.Add(time.Hour).UnixNano(), PerHost: true})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range a.Slices {
		f(&a.Slices[i])
	}
}

const agentProcess = "HTTPCTL_TEST_AGENT"

// TestAgentProcess is the agent that TestAgentKilled kills: this test's own
// program, started again.
func TestAgentProcess(t *testing.T) {
	args := strings.Split(os.Getenv(agentProcess), "\n")
	if len(args) != 3 {
		t.Skip("runs as a part of TestAgentKilled only")
	}
	a, err := agent.Start(t.Context(), quick(), agentConfig(args[0], args[1], "web-1"), args[2], slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("watching")
	// Until killed, or told to stop.
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	if err := a.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// agentRun is an agent in a process of its own.
type agentRun struct {
	cmd  *exec.Cmd
	in   io.Writer
	read chan struct{} // closed when all that the process wrote was read
	once sync.Once
	err  error // how it ended
}

// startAgentProcess starts TestAgentProcess of a test program, and waits until it watches.
func startAgentProcess(t *testing.T, program, address, state, file string) *agentRun {
	t.Helper()
	cmd := exec.Command(program, "-test.run=^TestAgentProcess$", "-test.v")
	cmd.Env = append(os.Environ(), agentProcess+"="+address+"\n"+state+"\n"+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	r := &agentRun{cmd: cmd, in: in, read: make(chan struct{})}
	t.Cleanup(r.kill)
	for lines.Scan() && !strings.Contains(lines.Text(), "watching") {
	}
	go func() { // lets the process write; ends with it
		defer close(r.read)
		for lines.Scan() {
		}
	}()
	return r
}

// wait waits until it has ended.
func (r *agentRun) wait() error {
	r.once.Do(func() {
		<-r.read
		r.err = r.cmd.Wait()
	})
	return r.err
}

// kill ends it at once, if it is still there.
func (r *agentRun) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.wait()
}

// end ends it in order.
func (r *agentRun) end(t *testing.T) {
	t.Helper()
	_, _ = r.in.Write([]byte("\n"))
	if err := r.wait(); err != nil {
		t.Errorf("the agent ended: %v", err)
	}
}

// numbered makes a capture whose n-th request is for the section /n, one each step.
func numbered(t *testing.T, first, n int, step time.Duration) (file string) {
	t.Helper()
	c := testkit.NewConversation(fmt.Sprintf("192.0.2.1:%d", 40000+first/100_000), serverAddress+":80")
	c.Step = 10 * time.Microsecond
	c.Open()
	for i := range n {
		c.Now = testkit.Start.Add(time.Duration(i) * step)
		c.ToServer(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: example.org\r\n\r\n", first+i))
		c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	}
	return testkit.WriteFile(t, c.Frames...)
}

// TestAgentKilled kills an agent's process in the middle of an interval and
// starts another on its state, twice. Outside the spans that are declared unobserved every request
// is stored once; inside at most once.
func TestAgentKilled(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	state := stateDir(t)
	const step, runs, perRun = 5 * time.Millisecond, 3, 100_000
	const last = 800 // requests of the run that is not killed; those that are would last for 20 s
	requests := [runs]int{4000, 4000, last}
	var killed, started [runs]int64 // when a run was certainly over, and under way
	for run := range runs {
		agent := startAgentProcess(t, os.Args[0], c.address(), state, numbered(t, run*perRun, requests[run], step))
		started[run] = time.Now().UnixNano()
		want := 1
		if run == runs-1 {
			want = last // all that it counted must be there before it is asked to end
		}
		eventually(t, fmt.Sprintf("run %d is delivered", run), func() error {
			top, err := c.client.Top(t.Context(), "section", client.Question{Limit: 10_000})
			if err != nil {
				return err
			}
			n := 0
			for _, row := range top.Rows {
				if number(t, row.Keys[0]) >= run*perRun {
					n++
				}
			}
			if n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
		time.Sleep(time.Second + time.Duration(run)*300*time.Millisecond)
		agent.kill()
		killed[run] = time.Now().UnixNano()
	}
	c.stop()

	// When each stored request was seen, and what was declared.
	seen := map[int]int64{}
	var lost []bucket.Span
	c.stored(func(s *store.Slice) {
		lost = append(lost, s.Unobserved...)
		last := s.Table.Schema.Measure("last_seen")
		for _, row := range s.Table.Rows {
			n := number(t, row.Keys[0])
			if row.Values[0] != 1 || seen[n] != 0 {
				t.Errorf("request %d is stored %d times more", n, row.Values[0])
			}
			seen[n] = row.Values[last]
		}
	})
	lost = bucket.MergeSpans(lost)
	inside := func(at int64) bool {
		for _, s := range lost {
			if at >= s.From && at < s.To {
				return true
			}
		}
		return false
	}
	if len(lost) != runs-1 {
		t.Errorf("declared %v, want a span for each of %d kills", lost, runs-1)
	}
	for i, s := range lost[:min(len(lost), runs-1)] {
		away := time.Duration(started[i+1] - killed[i])
		if d := time.Duration(s.To - s.From); d > away+5*time.Second { // an interval is open, and one may not be on disk yet
			t.Errorf("%v is declared unobserved, more than an interval and the %v away", d, away)
		}
	}
	missing := 0
	for run := range runs {
		begin := seen[run*perRun]
		if begin == 0 {
			t.Fatalf("the first request of run %d is not stored", run)
		}
		for i := range requests[run] {
			at := begin + int64(i)*int64(step)
			if seen[run*perRun+i] != 0 {
				if d := seen[run*perRun+i] - at; d < -int64(time.Millisecond) || d > int64(time.Millisecond) {
					t.Errorf("request %d of run %d is at %v, want its time in the capture", i, run, time.Duration(d))
				}
				continue
			}
			if run == runs-1 {
				t.Errorf("request %d of the run that was not killed is not stored", i)
			}
			// What the kill took lies in the span that the next run declares, or was
			// never shown to the agent.
			if at < killed[run] && !inside(at) {
				t.Errorf("request %d of run %d, at %v, is neither stored nor declared in %v", i, run, time.Unix(0, at), lost)
			}
			missing++
		}
	}
	if missing == 0 {
		t.Error("nothing is missing: the agent was not killed in the middle of an interval")
	}
	t.Logf("%d stored, %d taken by kills and declared: %v", len(seen), missing, lost)
}

func number(t *testing.T, section string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(section, "example.org/"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
