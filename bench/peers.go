package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bars of the comparison.
const (
	barTcpdump = 2.0  // times the CPU time of tcpdump --count, which decodes nothing
	barHttpry  = 1.0  // times that of httpry, which does not reassemble
	barTshark  = 60.0 // times faster than tshark -Y http
	barMemory  = 64 << 20
)

// cost is what a run of a program took.
type cost struct {
	stdout    []byte
	cpu, wall time.Duration
	rss       int64 // bytes
}

// measure runs a program once.
func measure(name string, args ...string) (cost, error) {
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, err
	}
	peak, done := make(chan int64, 1), make(chan struct{})
	go func() { peak <- watchMemory(cmd.Process.Pid, done) }()
	err := cmd.Wait()
	c := cost{stdout: stdout.Bytes(), wall: time.Since(start)}
	close(done)
	c.rss = <-peak
	if err != nil {
		return cost{}, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c, nil
}

// watchMemory returns the peak of a process's resident memory in bytes, as seen until done. The
// ru_maxrss of a child will not do: it begins with the memory of its parent, which has forked.
func watchMemory(pid int, done <-chan struct{}) (peak int64) {
	for {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // gone is no news
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			peak = max(peak, kib<<10)
		}
		select {
		case <-done:
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// peer is a program in the race.
type peer struct {
	name string
	args []string
	// requests counts the requests that a run has found; nil where it tells none.
	requests func(stdout []byte) (int64, error)
	runs     []cost
	err      error
}

// median returns the middle run by f.
func (p *peer) median(f func(cost) float64) float64 {
	all := make([]float64, 0, len(p.runs))
	for _, r := range p.runs {
		all = append(all, f(r))
	}
	slices.SortFunc(all, cmp.Compare[float64])
	return all[len(all)/2]
}

func (p *peer) cpu() float64  { return p.median(func(c cost) float64 { return c.cpu.Seconds() }) }
func (p *peer) wall() float64 { return p.median(func(c cost) float64 { return c.wall.Seconds() }) }
func (p *peer) rss() float64  { return p.median(func(c cost) float64 { return float64(c.rss) }) }

// race runs every program in turn on the same, cached file, runs times, and prints medians and their
// ratios to httpctl's. It returns an error that names the bars that are missed.
func race(httpctl, capture string, packets, requests int64, runs int) error {
	httpryRequests := int64(0)
	found := filepath.Join(filepath.Dir(capture), "httpry.txt")
	defer os.Remove(found)
	peers := []*peer{
		{name: "httpctl read", args: []string{httpctl, "read", "-o", "json", capture}, requests: countReport},
		{name: "tcpdump --count", args: []string{"tcpdump", "--count", "-r", capture}},
		{name: "httpry", args: []string{"httpry", "-q", "-o", found, "-r", capture}, requests: func([]byte) (int64, error) { return httpryRequests, nil }},
		{name: "ndpiReader", args: []string{"ndpiReader", "-q", "-i", capture}},
		{name: "tshark -Y http", args: []string{"tshark", "-n", "-r", capture, "-Y", "http", "-T", "fields", "-e", "http.request.method", "-e", "http.response.code"}, requests: countFields},
	}
	if _, err := measure("cat", capture); err != nil { // into the cache
		return err
	}
	for range runs {
		for _, p := range peers {
			if p.err != nil {
				continue
			}
			_ = os.Remove(found) // httpry appends
			c, err := measure(p.args[0], p.args[1:]...)
			if err != nil {
				p.err = err
				continue
			}
			p.runs = append(p.runs, c)
			if p.name == "httpry" {
				text, err := os.ReadFile(found)
				if err != nil {
					return err
				}
				httpryRequests = int64(bytes.Count(text, []byte("\t>\t")))
			}
		}
	}
	us := peers[0]
	if us.err != nil {
		return us.err
	}
	fmt.Printf("\nmedian of %d runs, in turn, file cached; ratios to httpctl read\n", runs)
	fmt.Printf("%-16s %9s %7s %9s %7s %8s %7s %12s  %s\n", "program", "CPU s", "x", "wall s", "x", "MiB", "x", "packets/s", "requests")
	for _, p := range peers {
		if p.err != nil {
			fmt.Printf("%-16s not measured: %.100v\n", p.name, p.err)
			continue
		}
		told := "-"
		if p.requests != nil {
			n, err := p.requests(p.runs[len(p.runs)-1].stdout)
			if told = fmt.Sprintf("%d", n); err != nil {
				told = err.Error()
			} else if n != requests {
				told += fmt.Sprintf(", nginx logged %d", requests)
			} else {
				told += ", as nginx logged"
			}
		}
		fmt.Printf("%-16s %9.2f %7.2f %9.2f %7.2f %8.1f %7.2f %12.0f  %s\n", p.name, p.cpu(), p.cpu()/us.cpu(),
			p.wall(), p.wall()/us.wall(), p.rss()/(1<<20), p.rss()/us.rss(), float64(packets)/p.wall(), told)
	}
	fmt.Println()
	var missed []error
	bar := func(p *peer, what string, got, want float64, ok bool) {
		if p.err != nil {
			missed = append(missed, fmt.Errorf("%s was not measured", p.name))
			return
		}
		word := "holds"
		if !ok {
			word = "MISSED"
			missed = append(missed, fmt.Errorf("%s: %.2f, bar %.2f", what, got, want))
		}
		fmt.Printf("%-48s %8.2f, bar %6.2f: %s\n", what, got, want, word)
	}
	tcpdump, httpry, tshark := peers[1], peers[2], peers[4]
	ratio := func(p *peer, f func(*peer) float64) (float64, float64) {
		if p.err != nil {
			return 0, 1
		}
		return f(us), f(p)
	}
	a, b := ratio(tcpdump, (*peer).cpu)
	bar(tcpdump, "CPU, times tcpdump --count, at most", a/b, barTcpdump, a <= barTcpdump*b)
	a, b = ratio(httpry, (*peer).cpu)
	bar(httpry, "CPU, times httpry, below", a/b, barHttpry, a < barHttpry*b)
	a, b = ratio(tshark, (*peer).wall)
	bar(tshark, "tshark's wall time, times httpctl's, at least", b/max(a, 1e-9), barTshark, a*barTshark <= b)
	bar(us, "resident MiB, at most", us.rss()/(1<<20), barMemory>>20, us.rss() <= barMemory)
	return errors.Join(missed...)
}

// countFields counts the requests in what tshark prints: a frame may hold several, with commas between.
func countFields(stdout []byte) (n int64, err error) {
	for line := range bytes.Lines(stdout) {
		if methods, _, _ := bytes.Cut(line, []byte{'\t'}); len(bytes.TrimSpace(methods)) > 0 {
			n += int64(1 + bytes.Count(methods, []byte{','}))
		}
	}
	return n, nil
}
