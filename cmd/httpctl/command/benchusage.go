package command

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// usage is what the simulator and the aggregator cost.
type usage struct {
	simulator, aggregator cost
	database              string // of the aggregator; "" when it is not known
	before, after         int64  // its size
	begun                 time.Time
	over                  time.Duration
}

// cost is what a process has used, from the second interval on: before, agents connect.
type cost struct {
	pid        int // 0: not known
	begin, now time.Duration
	resident   int64 // most seen
	anonymous  int64 // most seen; the rest are pages of files, which the kernel takes back when it needs memory
	whole      time.Duration
	first      time.Duration // before the run
}

func newUsage(aggregator int) *usage {
	u := &usage{simulator: cost{pid: os.Getpid()}, aggregator: cost{pid: aggregator}}
	for _, c := range []*cost{&u.simulator, &u.aggregator} {
		c.read()
		c.first = c.now
	}
	u.database = database(aggregator)
	u.before = sizeOf(u.database)
	return u
}

// sample looks at an interval's end.
func (u *usage) sample() {
	u.simulator.read()
	u.aggregator.read()
	if u.begun.IsZero() {
		u.begun = time.Now()
		u.simulator.begin, u.aggregator.begin = u.simulator.now, u.aggregator.now
	}
	u.over = time.Since(u.begun)
}

func (u *usage) end() {
	for _, c := range []*cost{&u.simulator, &u.aggregator} {
		steady := c.now // at the last interval's end
		c.read()
		c.whole, c.now = c.now-c.first, steady
	}
	u.after = sizeOf(u.database)
}

// share is the part of one core that was used between the first interval's end and the last one's; 0 if that is not known.
func (c *cost) share(over time.Duration) float64 {
	if over <= 0 || c.begin == 0 {
		return 0
	}
	return (c.now - c.begin).Seconds() / over.Seconds()
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// read updates the cost from /proc; where there is none, nothing changes.
func (c *cost) read() {
	dir := filepath.Join("/proc", strconv.Itoa(c.pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if c.pid == 0 || err != nil {
		return
	}
	// The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field behind it (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) > 12 {
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		c.now = time.Duration(user+system) * clockTick
	}
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			c.resident = max(c.resident, kib<<10)
		case "RssAnon:":
			c.anonymous = max(c.anonymous, kib<<10)
		}
	}
}

// database is the path of the database that a process has open, or "".
func database(pid int) string {
	links, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "fd", "*"))
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && filepath.Base(path) == "httpctl.db" {
			return path
		}
	}
	return ""
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if path == "" || err != nil {
		return 0
	}
	return info.Size()
}

// asked is how long dashboards took.
type asked struct {
	hour, day sketch.Latency
	errors    int
	err       error // the last one
}

// askDashboards asks for the dashboard every so often, of the last hour and the last day in turn, until the function that it
// returns is called. Each question waits for the one before.
func askDashboards(ctx context.Context, c *client.Client, every time.Duration) func() *asked {
	a := &asked{}
	if every == 0 {
		return func() *asked { return a }
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for turn := 0; ; turn++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			begin := time.Now()
			into, back := &a.hour, time.Hour
			if turn%2 == 1 {
				into, back = &a.day, 24*time.Hour
			}
			_, err := c.Dashboard(ctx, client.Question{Since: begin.Add(-back)})
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.errors++
				a.err = err
			default:
				into.Add(int64(time.Since(begin)))
			}
		}
	})
	return func() *asked {
		cancel()
		done.Wait()
		return a
	}
}
