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
	livePairs    = 10   // the least that the spread is judged by
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
func benchLive(dir, bin string, pairs, seconds int) (err error) {
	dir = filepath.Join(dir, "live")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(2*pairs+20)*time.Duration(seconds+15)*time.Second)
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
	for _, part := range []func(pairs, seconds int) error{l.fixedRate, l.downloads} {
		if err := part(pairs, seconds); err != nil {
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
	agent     time.Duration
	counted   int64 // requests, by the agent
	drops     int64
	unmatched int64
	latency   [3]time.Duration // at percentiles
}

var percentiles = [3]float64{0.50, 0.90, 0.99}

func (o *outcome) rate() float64 { return float64(o.requests) / o.wall.Seconds() }

// run has h2load ask for a number of requests, at a rate, or as fast as it can at 0.
func (l *live) run(withAgent bool, requests, rate int, uris ...string) (o outcome, err error) {
	var agent *exec.Cmd
	if withAgent {
		if agent, err = l.start(filepath.Join(l.bin, "httpctl-agent"), "--config", filepath.Join(l.dir, "agent.yaml")); err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, end(agent)) }()
		if err := l.ready(); err != nil {
			return o, err
		}
	}
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
	if withAgent {
		before = cpuOf(agent)
	}
	start := time.Now()
	if out, err := l.lab.Command(l.ctx, "client", "h2load", append(args, uris...)...).CombinedOutput(); err != nil {
		return o, fmt.Errorf("h2load: %w: %s", err, out)
	}
	o.wall = time.Since(start)
	time.Sleep(1500 * time.Millisecond) // nginx writes its log once a second, the agent's page is up to 0.8 s behind
	o.nginx = cpuOf(l.nginx) - nginx
	if withAgent {
		o.agent = cpuOf(agent) - before
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

// pair runs the same load twice, first or second with an agent.
func (l *live) pair(i, requests, rate int, uris ...string) (without, with outcome, err error) {
	for k := range 2 {
		withAgent := k != i%2
		o, err := l.run(withAgent, requests, rate, uris...)
		if err != nil {
			return without, with, err
		}
		if withAgent {
			with = o
		} else {
			without = o
		}
	}
	return without, with, with.exact()
}

// fixedRate finds what nginx can, with an agent and without, then compares at a part of that.
func (l *live) fixedRate(pairs, seconds int) error {
	warm, err := l.run(false, 20_000, 0, "-i", l.uris)
	if err != nil {
		return err
	}
	saturated := int(warm.rate()) * seconds
	var without, with []outcome
	for i := range max(pairs/2, 3) {
		a, b, err := l.pair(i, saturated, 0, "-i", l.uris)
		if err != nil {
			return fmt.Errorf("at saturation: %w", err)
		}
		without, with = append(without, a), append(with, b)
	}
	rate := func(o outcome) float64 { return o.rate() }
	peak := medianOf(without, rate)
	fall := medianFall(without, with)
	share := medianOf(with, func(o outcome) float64 { return o.agent.Seconds() / (o.wall.Seconds() * float64(runtime.NumCPU())) })
	fmt.Printf("saturation: %.0f requests/s without an agent (%.0f to %.0f), %.0f with one: %.1f%% less than the run beside it; the agent's share of %d cores: %.1f%%; every request counted, 0 drops\n",
		peak, minOf(without, rate), maxOf(without, rate), medianOf(with, rate), 100*fall, runtime.NumCPU(), 100*share)
	failed := []error{bar(fall <= share, "throughput at saturation falls by %.1f%%, more than the agent's share of CPU, %.1f%%", 100*fall, 100*share)}

	without, with = nil, nil
	fixed := int(liveRate*peak) / liveClients * liveClients
	for i := range pairs {
		a, b, err := l.pair(i, fixed*seconds, fixed, "-i", l.uris)
		if err != nil {
			return fmt.Errorf("at %d requests/s: %w", fixed, err)
		}
		without, with = append(without, a), append(with, b)
	}
	ratio := medianOf(with, func(o outcome) float64 { return float64(o.agent) / float64(o.nginx) })
	perRequest := medianOf(with, func(o outcome) float64 { return o.agent.Seconds() * 1e6 / float64(o.requests) })
	fmt.Printf("%d requests/s (%.0f%% of that), %d pairs of %d s: every request counted, 0 drops; the agent's CPU time is %.1f%% of nginx's, %.1f us a request\n",
		fixed, 100*liveRate, pairs, seconds, 100*ratio, perRequest)
	failed = append(failed, bar(ratio <= barAgentCPU, "the agent's CPU time is %.1f%% of nginx's, more than %.0f%%", 100*ratio, 100*barAgentCPU))
	for i, p := range percentiles {
		ms := func(o outcome) float64 { return o.latency[i].Seconds() * 1e3 }
		got, low, high := medianOf(with, ms), minOf(without, ms), maxOf(without, ms)
		fmt.Printf("  latency p%.0f: %.2f ms with, %.2f without (%.2f to %.2f)\n", 100*p, got, medianOf(without, ms), low, high)
		failed = append(failed, bar(got <= high, "latency p%.0f is %.2f ms, outside the spread without an agent", 100*p, got))
	}
	if pairs < livePairs {
		fmt.Printf("  fewer pairs than the bars are for: %d\n", livePairs)
	}
	return errors.Join(failed...)
}

// downloads has bodies pass that are to be skipped, as fast as the link takes them.
func (l *live) downloads(pairs, seconds int) error {
	url := fmt.Sprintf("http://%s/4M.bin", l.lab.Address("server"))
	warm, err := l.run(false, 200, 0, url)
	if err != nil {
		return err
	}
	var without, with []outcome
	for i := range max(pairs/3, 3) {
		a, b, err := l.pair(i, int(warm.rate())*seconds, 0, url)
		if err != nil {
			return fmt.Errorf("downloads: %w", err)
		}
		without, with = append(without, a), append(with, b)
	}
	gigabytes := func(o outcome) float64 { return float64(o.requests) * downloadSize / 1e9 / o.wall.Seconds() }
	perGigabyte := func(o outcome) float64 { return o.agent.Seconds() * 1e3 / (float64(o.requests) * downloadSize / 1e9) }
	fmt.Printf("downloads of 4 MiB: %.2f GB/s without an agent, %.2f with one; every request counted, 0 drops; the agent's CPU time: %.0f ms a gigabyte (%.0f to %.0f)\n",
		medianOf(without, gigabytes), medianOf(with, gigabytes), medianOf(with, perGigabyte), minOf(with, perGigabyte), maxOf(with, perGigabyte))
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

func sortedBy(of []outcome, f func(outcome) float64) []float64 {
	var values []float64
	for _, o := range of {
		values = append(values, f(o))
	}
	slices.SortFunc(values, cmp.Compare)
	return values
}

func medianOf(of []outcome, f func(outcome) float64) float64 { return sortedBy(of, f)[len(of)/2] }
func minOf(of []outcome, f func(outcome) float64) float64    { return sortedBy(of, f)[0] }
func maxOf(of []outcome, f func(outcome) float64) float64    { return sortedBy(of, f)[len(of)-1] }
