package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// The bars of the live comparison.
const (
	liveRate     = 0.60 // of what nginx reaches without an agent
	barAgentCPU  = 0.08 // of nginx's CPU time, at that rate
	liveRounds   = 10   // the least that the spread is judged by
	liveClients  = 32
	downloadSize = 4 << 20
)

// live measures an agent beside nginx: on two hosts that a veth pair joins, with offloads as they
// come, so that nginx, the load and the agent share the machine's cores.
type live struct {
	ctx      context.Context
	dir, bin string
	lab      *testkit.Lab
	nginx    *exec.Cmd
	uris     string // file of them
	counted  int64  // requests, by the agents of all runs
}

// benchLive says what an agent costs where it runs: CPU time beside nginx's, latency, throughput. It
// returns an error that names the bars that are missed.
func benchLive(dir, bin string, rounds, seconds int) (err error) {
	dir = filepath.Join(dir, "live")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(2*int(observers)*rounds+20)*time.Duration(seconds+15)*time.Second)
	defer cancel()
	l := &live{ctx: ctx, dir: dir, bin: bin, uris: filepath.Join(dir, "uris")}
	if l.lab, err = testkit.NewPair("server", "client"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.lab.Close()) }()
	stop, err := l.serve()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	var failed []error
	for _, part := range []func(rounds, seconds int) error{l.fixedRate, l.downloads} {
		if err := part(rounds, seconds); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(append(failed, l.delivered())...)
}

// serve starts nginx and an aggregator, which stop ends.
func (l *live) serve() (stop func() error, err error) {
	conf, err := testkit.WriteNginx(l.dir, 80)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "www", "4M.bin"), bytes.Repeat([]byte("four megabytes\r\n"), downloadSize/16), 0o644); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(1, 2))
	var uris strings.Builder
	for i := range 1000 {
		path := fmt.Sprintf("small/%d.txt", 1+random.IntN(100))
		switch p := random.IntN(100); {
		case p < 8:
			path = fmt.Sprintf("large/%d.bin", 1+random.IntN(20))
		case p < 30:
			path = fmt.Sprintf("medium/%d.bin?v=%d", 1+random.IntN(50), i)
		case p < 36:
			path = fmt.Sprintf("missing/%d", 1+random.IntN(200))
		}
		fmt.Fprintf(&uris, "http://%s/%s\n", l.lab.Address("server"), path)
	}
	if err := os.WriteFile(l.uris, []byte(uris.String()), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "aggregator.yaml"), []byte("aggregator:\n  data: "+l.dir+"/aggregator\n"), 0o644); err != nil {
		return nil, err
	}
	config := "agent:\n  host_name: server\n  state: " + l.dir + "/agent\n  aggregator: unix:" + l.dir +
		"/aggregator/httpctl.sock\n  metrics: 127.0.0.1:7422\n  capture:\n    interfaces: [eth0]\n"
	if err := os.WriteFile(filepath.Join(l.dir, "agent.yaml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	if l.nginx, err = l.start("nginx", "-c", conf); err != nil {
		return nil, err
	}
	aggregator, err := l.start(filepath.Join(l.bin, "httpctl-aggregator"), "--config", filepath.Join(l.dir, "aggregator.yaml"))
	if err != nil {
		return nil, errors.Join(err, end(l.nginx))
	}
	time.Sleep(time.Second)
	return func() error { return errors.Join(end(l.nginx), end(aggregator)) }, nil
}

// start runs a program on the server. What it says goes to a file.
func (l *live) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := l.lab.Command(l.ctx, "server", name, args...)
	log, err := os.OpenFile(filepath.Join(l.dir, filepath.Base(name)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cmd, nil
}

func end(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// outcome is what a run of load did.
type outcome struct {
	requests  int64 // by nginx's log
	wall      time.Duration
	nginx     time.Duration // CPU
	observer  time.Duration // CPU, of the agent or of tcpdump
	counted   int64         // requests, by the agent
	drops     int64
	unmatched int64
	latency   [3]time.Duration // at percentiles
}

var percentiles = [3]float64{0.50, 0.90, 0.99}

func (o *outcome) rate() float64 { return float64(o.requests) / o.wall.Seconds() }

// observer is what listens beside nginx.
type observer int

const (
	nobody    observer = iota
	tcpdump            // copies packets, and looks at none: what listening costs by itself
	agent              // the program that is measured
	observers          // their number
)

// listen starts an observer; stop ends it.
func (l *live) listen(by observer) (cmd *exec.Cmd, stop func() error, err error) {
	switch by {
	case tcpdump:
		// The ring's size is the agent's by default.
		if cmd, err = l.start("tcpdump", "-i", "eth0", "-n", "-B", "32768", "-w", "/dev/null", "tcp"); err != nil {
			return nil, nil, err
		}
		time.Sleep(time.Second)
	case agent:
		if cmd, err = l.start(filepath.Join(l.bin, "httpctl-agent"), "--config", filepath.Join(l.dir, "agent.yaml")); err != nil {
			return nil, nil, err
		}
		if err := l.ready(); err != nil {
			return nil, nil, errors.Join(err, end(cmd))
		}
	default:
		return nil, func() error { return nil }, nil
	}
	return cmd, func() error { return end(cmd) }, nil
}

// run has h2load ask for a number of requests, at a rate, or as fast as it can at 0.
func (l *live) run(by observer, requests, rate int, uris ...string) (o outcome, err error) {
	observing, stop, err := l.listen(by)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	logged, err := l.logged()
	if err != nil {
		return o, err
	}
	log := filepath.Join(l.dir, "h2load.log")
	_ = os.Remove(log)
	args := []string{"--h1", "-t", "1", "-c", strconv.Itoa(liveClients), "-n", strconv.Itoa(requests), "--log-file", log}
	if rate > 0 {
		args = append(args, "--rps", strconv.Itoa(rate/liveClients))
	}
	nginx := cpuOf(l.nginx)
	var before time.Duration
	if observing != nil {
		before = cpuOf(observing)
	}
	start := time.Now()
	if out, err := l.lab.Command(l.ctx, "client", "h2load", append(args, uris...)...).CombinedOutput(); err != nil {
		return o, fmt.Errorf("h2load: %w: %s", err, out)
	}
	o.wall = time.Since(start)
	time.Sleep(1500 * time.Millisecond) // nginx writes its log once a second, the agent's page is up to 0.8 s behind
	o.nginx = cpuOf(l.nginx) - nginx
	if observing != nil {
		o.observer = cpuOf(observing) - before
	}
	if by == agent {
		if err := l.counters(&o); err != nil {
			return o, err
		}
	}
	after, err := l.logged()
	if err != nil {
		return o, err
	}
	o.requests = after - logged
	o.latency, err = latencies(log)
	return o, err
}

// cpuOf returns the CPU time that a process has taken, in steps of 10 ms (proc(5), utime and stime).
func cpuOf(cmd *exec.Cmd) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)) // gone: 0, which shows
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// logged counts the requests in nginx's log.
func (l *live) logged() (n int64, err error) {
	data, err := os.ReadFile(filepath.Join(l.dir, "access.log"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return int64(bytes.Count(data, []byte("\n"))), err
}

// scrape reads the agent's metrics.
func (l *live) scrape() (map[string]int64, error) {
	out, err := l.lab.Command(l.ctx, "server", "curl", "-sS", "--max-time", "2", "http://127.0.0.1:7422/metrics").Output()
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			v, _ := strconv.ParseFloat(value, 64)
			values[name] = int64(v)
		}
	}
	return values, nil
}

// ready waits for the agent to capture.
func (l *live) ready() (err error) {
	for range 100 {
		if _, err = l.scrape(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the agent does not start: %w; see %s", err, filepath.Join(l.dir, "httpctl-agent.log"))
}

func (l *live) counters(o *outcome) error {
	values, err := l.scrape()
	if err != nil {
		return err
	}
	for name, into := range map[string]*int64{"requests": &o.counted, "kernel_drops": &o.drops, "unmatched_requests": &o.unmatched} {
		v, ok := values["httpctl_agent_"+name+"_total"]
		if !ok {
			return fmt.Errorf("the agent has no metric httpctl_agent_%s_total", name)
		}
		*into = v
	}
	l.counted += o.counted
	return nil
}

// latencies reads h2load's log: start, status, microseconds.
func latencies(path string) (at [3]time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return at, err
	}
	defer f.Close()
	var all []time.Duration
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			return at, fmt.Errorf("%s: %q", path, lines.Text())
		}
		us, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return at, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, time.Duration(us)*time.Microsecond)
	}
	if len(all) == 0 {
		return at, fmt.Errorf("%s is empty", path)
	}
	slices.Sort(all)
	for i, p := range percentiles {
		at[i] = all[int(p*float64(len(all)-1))]
	}
	return at, nil
}

// exact says what an agent has not counted.
func (o *outcome) exact() error {
	if o.counted != o.requests || o.drops > 0 || o.unmatched > 0 {
		return fmt.Errorf("nginx logged %d requests, the agent counted %d, %d of them unmatched; the kernel dropped %d packets", o.requests, o.counted, o.unmatched, o.drops)
	}
	return nil
}

// round has the same load once beside each observer, in another order each time.
func (l *live) round(i, requests, rate int, uris ...string) (of [observers]outcome, err error) {
	for k := range observers {
		by := (observer(i) + k) % observers
		if of[by], err = l.run(by, requests, rate, uris...); err != nil {
			return of, err
		}
	}
	return of, of[agent].exact()
}

// rounds collects the outcomes of several by observer.
func (l *live) rounds(n, requests, rate int, uris ...string) (of [observers][]outcome, err error) {
	for i := range n {
		round, err := l.round(i, requests, rate, uris...)
		if err != nil {
			return of, err
		}
		for by := range observers {
			of[by] = append(of[by], round[by])
		}
	}
	return of, nil
}

// fixedRate finds what nginx can beside each observer, then compares at a part of that.
func (l *live) fixedRate(rounds, seconds int) error {
	warm, err := l.run(nobody, 20_000, 0, "-i", l.uris)
	if err != nil {
		return err
	}
	of, err := l.rounds(max(rounds/2, 3), int(warm.rate())*seconds, 0, "-i", l.uris)
	if err != nil {
		return fmt.Errorf("at saturation: %w", err)
	}
	peak := medianOf(of[nobody], (*outcome).rate)
	share := func(by observer) float64 {
		return medianOf(of[by], func(o *outcome) float64 { return o.observer.Seconds() / (o.wall.Seconds() * float64(runtime.NumCPU())) })
	}
	fall, bare := medianFall(of[nobody], of[agent]), medianFall(of[nobody], of[tcpdump])
	fmt.Printf("saturation: %.0f requests/s alone (%.0f to %.0f)\n", peak, minOf(of[nobody], (*outcome).rate), maxOf(of[nobody], (*outcome).rate))
	fmt.Printf("  the agent: %.0f, %.1f%% less than the run beside it, with %.1f%% of %d cores; every request counted, 0 drops\n",
		medianOf(of[agent], (*outcome).rate), 100*fall, 100*share(agent), runtime.NumCPU())
	fmt.Printf("  tcpdump to /dev/null: %.0f, %.1f%% less, with %.1f%%\n", medianOf(of[tcpdump], (*outcome).rate), 100*bare, 100*share(tcpdump))
	failed := []error{bar(fall <= share(agent), "throughput at saturation falls by %.1f%%, more than the agent's share of CPU, %.1f%%", 100*fall, 100*share(agent)),
		bar(fall <= bare, "throughput at saturation falls by %.1f%%, more than beside tcpdump, %.1f%%", 100*fall, 100*bare)}

	fixed := int(liveRate*peak) / liveClients * liveClients
	if of, err = l.rounds(rounds, fixed*seconds, fixed, "-i", l.uris); err != nil {
		return fmt.Errorf("at %d requests/s: %w", fixed, err)
	}
	ofNginx := func(o *outcome) float64 { return float64(o.observer) / float64(o.nginx) }
	perRequest := func(o *outcome) float64 { return o.observer.Seconds() * 1e6 / float64(o.requests) }
	ratio := medianOf(of[agent], ofNginx)
	fmt.Printf("%d requests/s (%.0f%% of that), %d rounds of %d s: every request counted, 0 drops; the agent's CPU time is %.1f%% of nginx's, %.1f us a request; tcpdump's %.1f%%, %.1f us\n",
		fixed, 100*liveRate, rounds, seconds, 100*ratio, medianOf(of[agent], perRequest), 100*medianOf(of[tcpdump], ofNginx), medianOf(of[tcpdump], perRequest))
	failed = append(failed, bar(ratio <= barAgentCPU, "the agent's CPU time is %.1f%% of nginx's, more than %.0f%%", 100*ratio, 100*barAgentCPU))
	for i, p := range percentiles {
		ms := func(o *outcome) float64 { return o.latency[i].Seconds() * 1e3 }
		got, low, high := medianOf(of[agent], ms), minOf(of[nobody], ms), maxOf(of[nobody], ms)
		fmt.Printf("  latency p%.0f: %.2f ms with the agent, %.2f with tcpdump, %.2f alone (%.2f to %.2f)\n",
			100*p, got, medianOf(of[tcpdump], ms), medianOf(of[nobody], ms), low, high)
		failed = append(failed, bar(got <= high, "latency p%.0f is %.2f ms, outside the spread without an agent", 100*p, got))
	}
	if rounds < liveRounds {
		fmt.Printf("  fewer rounds than the bars are for: %d\n", liveRounds)
	}
	return errors.Join(failed...)
}

// downloads has bodies pass that are to be skipped, as fast as the link takes them.
func (l *live) downloads(rounds, seconds int) error {
	url := fmt.Sprintf("http://%s/4M.bin", l.lab.Address("server"))
	warm, err := l.run(nobody, 200, 0, url)
	if err != nil {
		return err
	}
	of, err := l.rounds(max(rounds/3, 3), int(warm.rate())*seconds, 0, url)
	if err != nil {
		return fmt.Errorf("downloads: %w", err)
	}
	gigabytes := func(o *outcome) float64 { return float64(o.requests) * downloadSize / 1e9 / o.wall.Seconds() }
	perGigabyte := func(o *outcome) float64 {
		return o.observer.Seconds() * 1e3 / (float64(o.requests) * downloadSize / 1e9)
	}
	fmt.Printf("downloads of 4 MiB: %.2f GB/s alone, %.2f beside the agent, %.2f beside tcpdump; every request counted, 0 drops; CPU time of the agent: %.0f ms a gigabyte (%.0f to %.0f), of tcpdump: %.0f\n",
		medianOf(of[nobody], gigabytes), medianOf(of[agent], gigabytes), medianOf(of[tcpdump], gigabytes),
		medianOf(of[agent], perGigabyte), minOf(of[agent], perGigabyte), maxOf(of[agent], perGigabyte), medianOf(of[tcpdump], perGigabyte))
	return nil
}

// delivered compares what the aggregator has, once all agents have stopped, with what they counted.
func (l *live) delivered() error {
	out, err := exec.CommandContext(l.ctx, filepath.Join(l.bin, "httpctl"), "top", "method", "--since", "3h", "-o", "json",
		"--aggregator", "unix:"+l.dir+"/aggregator/httpctl.sock").Output()
	if err != nil {
		return fmt.Errorf("httpctl top: %w", err)
	}
	var top struct {
		Total int64 `json:"total"`
	}
	if err := json.Unmarshal(out, &top); err != nil {
		return fmt.Errorf("httpctl top: %w", err)
	}
	fmt.Printf("the aggregator has %d requests of all runs, the agents counted %d\n", top.Total, l.counted)
	return bar(top.Total == l.counted, "%d requests were counted, %d delivered", l.counted, top.Total)
}

func bar(held bool, format string, args ...any) error {
	if held {
		return nil
	}
	return fmt.Errorf("bar missed: "+format, args...)
}

// medianFall returns by how much the rate falls from a run to the one beside it: the speed of a machine that is
// shared changes more between pairs than within.
func medianFall(without, with []outcome) float64 {
	var falls []float64
	for i := range with {
		falls = append(falls, 1-with[i].rate()/without[i].rate())
	}
	slices.Sort(falls)
	return falls[len(falls)/2]
}

func sortedBy(of []outcome, f func(*outcome) float64) []float64 {
	var values []float64
	for i := range of {
		values = append(values, f(&of[i]))
	}
	slices.SortFunc(values, cmp.Compare)
	return values
}

func medianOf(of []outcome, f func(*outcome) float64) float64 { return sortedBy(of, f)[len(of)/2] }
func minOf(of []outcome, f func(*outcome) float64) float64    { return sortedBy(of, f)[0] }
func maxOf(of []outcome, f func(*outcome) float64) float64    { return sortedBy(of, f)[len(of)-1] }
