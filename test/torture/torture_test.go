package torture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// minutesEnv makes the torture last that long; without, it is short.
	minutesEnv = "HTTPCTL_TORTURE"
	// seedEnv repeats the script of an earlier run, which has printed it.
	seedEnv = "HTTPCTL_TORTURE_SEED"

	width = time.Second // the least there is
	// lag is how long closing an interval and writing it to disk may take, besides what this machine was late
	// meanwhile (lateness), before its loss by a kill is another fault than the kill.
	lag  = 2 * time.Second
	port = "7420"
	// ringDeep is how long the kernel's ring holds packets for an agent that a busy machine does not let run: 32 blocks, of which
	// each is full after 400 ms, however few came.
	ringDeep = 13 * time.Second
	// weakWait is how long after a fault of its disk an agent may keep what it closes in memory: it opens a spool that
	// failed again after 5 s, with the next interval.
	weakWait  = 5*time.Second + width + lag
	perSecond = 30 // requests of a host
)

// fleet is what is tortured: an aggregator and agents, each with an
// interface of its own in one namespace.
type fleet struct {
	t          *testing.T
	lab        *testkit.Lab
	dir        string
	aggregator *process
	agents     []*process
	proxies    []*proxy // of a host; nil where it speaks TCP
	wires      []*wire
	can        means
	// sent gives a value when one of the proxies sees a bucket pass.
	sent chan struct{}

	begin time.Time
	// upgradeAt is when the aggregator of the version before is started for the last time; before begin it is that one, if there is one.
	upgradeAt time.Time
	starts    [2]int // of the aggregator: of the version before, of this one
	late      lateness
	mu        sync.Mutex
	done      []fault
	weak      map[int][]outage // of a host's disk
	count     [kinds]int
}

func newFleet(t *testing.T, hosts int, lasts time.Duration, upgraded bool) *fleet {
	t.Helper()
	lab, err := testkit.NewLab("fleet")
	if err != nil {
		t.Skip(err)
	}
	f := &fleet{t: t, lab: lab, dir: t.TempDir(), sent: make(chan struct{}, 1), weak: map[int][]outage{}}
	t.Cleanup(f.late.watch())
	t.Cleanup(func() {
		f.killAll() // a namespace lives on while a process is in it
		for _, w := range f.wires {
			w.close()
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	bin := programs(t)
	in := func(path string, args ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			return lab.Command(context.Background(), "fleet", path, args...)
		}
	}
	data := filepath.Join(f.dir, "aggregator")
	f.can.strace = testkit.Installed("strace")
	f.can.mount = f.mount(data, 64<<20+int(lasts.Minutes()*4)<<20) // the database and as much again
	socket := filepath.Join(data, "httpctl.sock")
	settings := f.file("aggregator.yaml",
		"timeout: 500ms\ndashboard_bucket_size: %v\naverage_bucket_size: 10s\naggregator:\n  data: %s\n  listen: [127.0.0.1:%s]\n", width, data, port)
	newer, older := in(filepath.Join(bin, "httpctl-aggregator"), "--config", settings), ""
	if upgraded {
		if path, ok := olderAggregator(t); ok {
			older = path
		} else {
			t.Log("the repository does not have the commit of the version before: the aggregator is not upgraded")
		}
	}
	f.aggregator = &process{name: "aggregator", ready: "serving", make: func() *exec.Cmd {
		if older != "" && (f.begin.IsZero() || time.Now().Before(f.upgradeAt)) {
			f.starts[0]++
			return in(older, "--config", settings)()
		}
		f.starts[1]++
		return newer()
	}}
	for h := range hosts {
		name := fmt.Sprintf("host-%d", h)
		end, peer := fmt.Sprintf("veth%d", h), fmt.Sprintf("wire%d", h)
		for _, args := range [][]string{
			{"link", "add", end, "type", "veth", "peer", "name", peer},
			{"link", "set", end, "up"}, {"link", "set", peer, "up"},
		} {
			if err := lab.IP("fleet", args...); err != nil {
				t.Fatal(err)
			}
		}
		w, err := newWire(lab.Namespace("fleet"), peer)
		if err != nil {
			t.Fatal(err)
		}
		f.wires = append(f.wires, w)
		address := "127.0.0.1:" + port
		var p *proxy
		if !speaksTCP(h) {
			path := filepath.Join(f.dir, name+".sock")
			p = newProxy(t, path, socket, f.sent)
			address = "unix:" + path
		}
		f.proxies = append(f.proxies, p)
		f.can.mount = f.can.mount && f.mount(filepath.Join(f.dir, name), 16<<20)
		f.agents = append(f.agents, &process{name: name, ready: "confined", make: in(filepath.Join(bin, "httpctl-agent"), "--config", f.file(name+".yaml",
			"timeout: 500ms\ndashboard_bucket_size: %v\naverage_bucket_size: 10s\nagent:\n  host_name: %s\n  state: %s\n  aggregator: %s\n  backoff_max: 500ms\n  memory: 96MiB\n"+
				"  local_networks: [192.0.2.80/32]\n  capture:\n    interfaces: [%s]\n    ring_size: 16MiB\n", width, name, filepath.Join(f.dir, name), address, end))})
	}
	f.can.nft = testkit.Installed("nft") && f.nft("add table inet torture; add chain inet torture input { type filter hook input priority 0; }") == nil
	return f
}

// lateness is how much later than it wanted to somebody had the processor, at most.
type lateness struct{ longest atomic.Int64 }

// watch looks until the function that it returns is called.
func (l *lateness) watch() (stop func()) {
	const pause = 20 * time.Millisecond
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for begin := time.Now(); ; begin = time.Now() {
			select {
			case <-ended:
				return
			case <-time.After(pause):
				l.longest.Store(max(l.longest.Load(), int64(time.Since(begin)-pause)))
			}
		}
	})
	return func() { close(ended); running.Wait() }
}

func (l *lateness) most() time.Duration { return time.Duration(l.longest.Load()) }

func (f *fleet) file(name, format string, args ...any) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fleet) nft(commands string) error {
	if out, err := f.lab.Command(context.Background(), "fleet", "nft", commands).CombinedOutput(); err != nil {
		return fmt.Errorf("nft %q: %w: %s", commands, err, out)
	}
	return nil
}

// mount makes a small file system of its own for a directory.
func (f *fleet) mount(dir string, size int) bool {
	f.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		f.t.Logf("no disk is filled: mount %s: %v", dir, err)
		return false
	}
	f.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			f.t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return true
}

// fill leaves no room in a directory's file system while wait runs.
func fill(dir string, wait func()) error {
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer file.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := file.Write(chunk); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				return err
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
	wait()
	return nil
}

// failSync has every fsync of a process fail while wait runs, and of those that follow it.
func failSync(p *process, wait func()) error {
	pid := p.pid()
	if pid == 0 {
		return nil
	}
	strace := exec.Command("strace", "-q", "-f", "-p", strconv.Itoa(pid), "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")
	strace.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := strace.Start(); err != nil {
		return fmt.Errorf("strace: %w", err)
	}
	wait()
	_ = strace.Process.Signal(unix.SIGINT) // it lets go of the process
	// Where that was killed while strace took hold of it, both would wait for ever.
	stuck := time.AfterFunc(time.Second, func() { _ = strace.Process.Kill() })
	_ = strace.Wait()
	stuck.Stop()
	// The children on which it tries what the kernel can outlive it where it was ended meanwhile.
	_ = unix.Kill(-strace.Process.Pid, unix.SIGKILL)
	return nil
}

func (f *fleet) processes() []*process { return append([]*process{f.aggregator}, f.agents...) }

func (f *fleet) killAll() {
	for _, p := range f.processes() {
		if p != nil {
			p.kill()
		}
	}
}

// do does what the script says, and returns when it is over.
func (f *fleet) do(ctx context.Context, e event) error {
	wait := func() {
		select {
		case <-ctx.Done():
		case <-time.After(e.lasts):
		}
	}
	if e.aimed {
		f.aim(ctx, e)
	}
	begin := time.Now().UnixNano()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		done := fault{at: begin, end: time.Now().UnixNano(), what: kindText[e.kind]}
		if e.host >= 0 {
			done.host = f.agents[e.host].name
		}
		f.done = append(f.done, done)
		f.count[e.kind]++
	}()
	switch e.kind {
	case killAgent:
		f.agents[e.host].kill()
		wait()
		return f.agents[e.host].start()
	case killAggregator:
		f.aggregator.kill()
		wait()
		return f.aggregator.start()
	case dropPackets:
		const rule = "add rule inet torture input tcp %s %s numgen random mod 100 < %d drop; "
		if err := f.nft(fmt.Sprintf(rule+rule, "dport", port, e.n, "sport", port, e.n)); err != nil {
			return err
		}
		wait()
		return f.nft("flush chain inet torture input")
	case fillAgent, failAgent:
		p := f.agents[e.host]
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.weak[e.host] = append(f.weak[e.host], outage{from: begin, to: time.Now().Add(weakWait).UnixNano()})
		}()
		if e.kind == fillAgent {
			if proxy := f.proxies[e.host]; proxy != nil {
				proxy.block(true)
				defer proxy.block(false)
			}
			return fill(filepath.Join(f.dir, p.name), wait)
		}
		return failSync(p, wait)
	case fillAggregator:
		return fill(filepath.Join(f.dir, f.aggregator.name), wait)
	case failAggregator:
		return failSync(f.aggregator, wait)
	default:
		f.proxies[e.host].do(ctx, e)
	}
	return nil
}

// aim waits for a bucket that is sent just now, and then so long that it is somewhere on its way.
func (f *fleet) aim(ctx context.Context, e event) {
	select {
	case <-f.sent: // an old one
	default:
	}
	select {
	case <-ctx.Done():
	case <-f.sent:
		time.Sleep(time.Duration(e.n) * time.Microsecond)
	case <-time.After(2 * width): // nothing is sent
	}
}

// actor names who an event is done to: nobody has two done at a time.
func (e event) actor() string {
	switch e.kind {
	case killAgent:
		return fmt.Sprintf("agent %d", e.host)
	case killAggregator:
		return "aggregator"
	case dropPackets:
		return "packets"
	case fillAgent, failAgent, fillAggregator, failAggregator:
		return fmt.Sprintf("disk %d", e.host)
	}
	return fmt.Sprintf("connection %d", e.host)
}

// act plays the script.
func (f *fleet) act(ctx context.Context, script []event) error {
	actors := map[string][]event{}
	for _, e := range script {
		actors[e.actor()] = append(actors[e.actor()], e)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, events := range actors {
		running.Go(func() {
			for _, e := range events {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(f.begin.Add(e.at))):
				}
				if err := f.do(ctx, e); err != nil {
					cancel(err)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// read fills the books from the store of the stopped aggregator.
func (f *fleet) read(from, to time.Time) *ledger {
	f.t.Helper()
	db, err := bolt.Open(filepath.Join(f.dir, "aggregator", "httpctl.db"), bolt.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	hosts, err := db.Hosts(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	l := &ledger{width: int64(width), lag: int64(lag + f.late.most()), deep: int64(ringDeep), faults: f.done}
	books := map[bucket.ID]*book{}
	for i, p := range f.agents {
		b := &book{host: p.name, sent: f.wires[i].sent, stored: map[int][]record{}, lost: map[int64]counted{}, outages: p.outages}
		for _, w := range f.weak[i] {
			// What it has not noticed has not held it up, unless it was held up already.
			n := len(b.weak)
			if n > 0 && w.from < b.weak[n-1].to || slices.ContainsFunc(p.trouble, func(at int64) bool { return at >= w.from && at < w.to }) {
				b.weak = append(b.weak, w)
			}
		}
		l.books = append(l.books, b)
		for _, h := range hosts {
			if h.Name == p.name {
				books[h.ID] = b
			}
		}
	}
	if len(hosts) != len(f.agents) || len(books) != len(hosts) {
		f.t.Errorf("the store knows %d hosts, want the %d agents, each with one id", len(hosts), len(f.agents))
	}
	query := func(plan store.Plan) *store.Answer {
		answer, err := db.Query(ctx, plan)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(answer.Damaged) > 0 {
			f.t.Errorf("%d intervals are damaged", len(answer.Damaged))
		}
		return answer
	}
	for _, s := range query(store.Plan{From: from.UnixNano(), To: to.UnixNano(), PerHost: true}).Slices {
		books[s.Host].declared = bucket.MergeSpans(s.Unobserved)
	}
	for ; from.Before(to); from = from.Add(time.Minute) {
		answer := query(store.Plan{Table: "section", By: []string{"section"}, From: from.UnixNano(), To: from.Add(time.Minute).UnixNano(), Step: width, PerHost: true})
		for _, s := range answer.Slices {
			b := books[s.Host]
			c := counted{requests: int64(s.Counters[exchange.Requests]), drops: int64(s.Counters[exchange.KernelDrops])}
			if s.Table != nil {
				at := s.Table.Schema.Measure("last_seen")
				if len(s.Table.Other.Values) > 0 {
					c.other = s.Table.Other.Values[0]
				}
				for _, row := range s.Table.Rows {
					id, err := strconv.Atoi(strings.TrimPrefix(row.Keys[0], "example.org/"))
					if err != nil {
						f.t.Errorf("the section %q was never sent", row.Keys[0])
					}
					b.stored[id] = append(b.stored[id], record{interval: s.Start, at: row.Values[at], hits: row.Values[0]})
				}
			}
			b.lost[s.Start] = c
		}
	}
	return l
}

// covered waits until the aggregator has all of every host that was before a time.
func (f *fleet) covered(ctx context.Context, end time.Time) error {
	c, err := client.New(client.Options{Address: "unix:" + filepath.Join(f.dir, "aggregator", "httpctl.sock")})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		hosts, err := c.Hosts(ctx, client.Question{})
		var behind []string
		for _, h := range hosts {
			if h.CoveredThrough.Before(end) {
				behind = append(behind, fmt.Sprintf("%s up to %s", h.Name, clock(h.CoveredThrough.UnixNano())))
			}
		}
		if err == nil && len(behind) == 0 && len(hosts) == len(f.agents) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not everything up to %s arrives: %v, %v", clock(end.UnixNano()), behind, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// length is how long to torture, and how many hosts.
func length(t *testing.T) (time.Duration, int) {
	t.Helper()
	text := os.Getenv(minutesEnv)
	if text == "" {
		return 20 * time.Second, 3
	}
	minutes, err := strconv.ParseFloat(text, 64)
	if err != nil || minutes <= 0 || minutes > 24*60 {
		t.Fatalf("%s=%q: want minutes, more than 0 and at most a day", minutesEnv, text)
	}
	return time.Duration(minutes * float64(time.Minute)), 8
}

// seed is that of the environment, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedEnv)
	if text == "" {
		return uint64(time.Now().UnixNano() % math.MaxInt32)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: want a number", seedEnv, text)
	}
	return n
}

// TestTorture kills agents and their aggregator and spoils their connections while requests pass,
// and holds what is stored against what passed: outside declared spans every request is stored once, in its
// interval, or counted lost there; within at most once. Kills of agents alone make spans, of an interval and the
// time away.
func TestTorture(t *testing.T) {
	if testing.Short() {
		t.Skip("20 s; left out with -short")
	}
	t.Parallel()
	lasts, hosts := length(t)
	seed := seed(t)
	f := newFleet(t, hosts, lasts, os.Getenv(minutesEnv) != "")
	script := plan(seed, hosts, lasts, f.can)
	t.Logf("seed %d, %v, %d hosts, %d events; the same again: %s=%d", seed, lasts, hosts, len(script), seedEnv, seed)
	if !f.can.nft {
		t.Log("nft is not installed (Debian package nftables), or not allowed: no packets are dropped")
	}
	if !f.can.strace {
		t.Log("strace is not installed: no fsync fails")
	}

	ctx, cancel := context.WithTimeout(context.Background(), lasts+5*time.Minute)
	defer cancel()
	started := time.Now()
	for _, p := range f.processes() {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range f.processes() {
		if err := p.watching(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if slow := min(time.Since(started).Seconds()/2, 5); slow > 1 && os.Getenv(minutesEnv) == "" {
		t.Logf("the programs took %v to start: the script is played %.1f times as slowly", time.Since(started).Round(time.Millisecond), slow)
		for i := range script {
			script[i].at = time.Duration(float64(script[i].at) * slow)
		}
	}
	f.begin = time.Now()
	f.upgradeAt = f.begin.Add(lasts / 2)
	stop := make(chan struct{})
	var playing sync.WaitGroup
	for h, w := range f.wires {
		playing.Go(func() {
			if err := w.play(stop, width, h*10_000_000, perSecond); err != nil {
				t.Errorf("host-%d: %v", h, err)
			}
		})
	}
	err := f.act(ctx, script)
	for _, p := range f.processes() {
		err = errors.Join(err, p.watching(ctx))
	}
	close(stop)
	playing.Wait()
	end := time.Now()
	// All that has passed is to arrive by itself, with idle intervals after it.
	settle, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := f.covered(settle, end); err != nil {
		t.Error(err)
	}
	for _, p := range append(f.agents, f.aggregator) {
		err = errors.Join(err, p.end())
	}
	kills, full, failing, refused := 0, 0, 0, 0
	for _, p := range f.processes() {
		kills, full, failing, refused = kills+p.kills, full+p.full, failing+p.failing, refused+p.refused
		for _, d := range p.died {
			t.Error(d)
		}
	}
	if err != nil {
		t.Fatal(err)
	}

	l := f.read(f.begin.Truncate(time.Minute).Add(-time.Minute), end.Add(time.Minute))
	for _, w := range l.books { // the first start is not a kill
		w.outages = w.outages[1:]
	}
	total, bad, wrong := l.audit()
	if text := l.text(bad, wrong); text != "" {
		t.Errorf("the ledger does not hold, seed %d\n%s", seed, text)
	}
	t.Logf("%d kills (%d of the aggregator, which started %d times as the version before, then %d times as this one); connections cut %d, stalled %d, one way %d, late %d, dribbling %d; packets dropped %d times; disks full %d and %d (the aggregator's), fsync fails %d and %d (the programs have said so %d and %d times, %d of them at a start, which was tried again)",
		kills, f.aggregator.kills, f.starts[0], f.starts[1], f.count[cut], f.count[stall], f.count[oneWay], f.count[reorder], f.count[dribble], f.count[dropPackets], f.count[fillAgent], f.count[fillAggregator], f.count[failAgent], f.count[failAggregator], full, failing, refused)
	t.Logf("%d requests in %d intervals of the hosts: %d stored, %d counted lost, %d within %d declared spans (%d of them with a disk that failed before the kill), %d intervals without any; a span took up to %v more than an interval and the time away; this machine was late by up to %v",
		total.oracle, total.intervals, total.stored, total.lost, total.inside, total.spans, total.weak, total.clean, total.longest.Round(time.Millisecond), f.late.most().Round(time.Millisecond))
	// A test that has hardly seen anything has shown nothing.
	if total.stored < total.oracle/3 || total.clean < total.intervals/5 || total.stored == total.oracle || f.aggregator.kills == 0 || kills == f.aggregator.kills {
		t.Errorf("this shows little: %+v, %d kills", total, kills)
	}
	f.counted()
}

// counted has tshark, where it is installed, count the same requests in captures of what was sent.
func (f *fleet) counted() {
	f.t.Helper()
	if !testkit.Installed("tshark") {
		f.t.Log("tshark is not installed: the oracle is this test's own count")
		return
	}
	for h, w := range f.wires {
		out, err := exec.Command("tshark", "-r", w.file(f.t), "-Y", "http.request", "-T", "fields", "-e", "http.request.uri").Output()
		if err != nil {
			f.t.Fatalf("tshark: %v", err)
		}
		lines := strings.Fields(string(out))
		want := w.sent[:min(len(w.sent), keepFrames)]
		if len(lines) != len(want) {
			f.t.Errorf("host-%d: tshark counts %d requests, the oracle %d", h, len(lines), len(want))
			continue
		}
		for i, line := range lines {
			if line != fmt.Sprintf("/%d", want[i].id) {
				f.t.Errorf("host-%d: tshark's request %d is %s, the oracle's /%d", h, i, line, want[i].id)
				break
			}
		}
	}
}
