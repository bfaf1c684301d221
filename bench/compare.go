package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// compare returns an error that names every difference.
func compare(got report, want *testkit.AccessLog) error {
	var errs []error
	differ := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if got.Requests != want.Requests || got.Responses != want.Requests {
		differ("requests, responses = %d, %d, nginx logged %d", got.Requests, got.Responses, want.Requests)
	}
	for dimension, keys := range want.Tops {
		rows := map[string]int64{}
		for _, r := range got.Tops[dimension] {
			rows[r.Key] = r.Hits
		}
		if len(rows) != len(keys) {
			differ("%s has %d keys, want %d", dimension, len(rows), len(keys))
		}
		for key, n := range keys {
			if rows[key] != n {
				differ("%s %q = %d, want %d", dimension, key, rows[key], n)
			}
		}
	}
	for _, r := range got.Tops["volume"] {
		if r.UploadBytes != want.Upload[r.Key] || r.DownloadBytes != want.Download[r.Key] {
			differ("volume of %q = %d up, %d down, want %d, %d", r.Key, r.UploadBytes, r.DownloadBytes, want.Upload[r.Key], want.Download[r.Key])
		}
	}
	return errors.Join(errs...)
}

// cost is what a run of a program took.
type cost struct {
	stdout    []byte
	cpu, wall time.Duration
	rss       int64 // bytes
}

// measure runs a program several times and returns the run of median CPU time.
func measure(runs int, name string, args ...string) (cost, error) {
	var all []cost
	for range runs {
		cmd := exec.Command(name, args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		start := time.Now()
		if err := cmd.Run(); err != nil {
			return cost{}, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.Bytes())
		}
		c := cost{stdout: stdout.Bytes(), wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			c.rss = usage.Maxrss << 10 // getrusage(2): kilobytes
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b cost) int { return int(a.cpu - b.cpu) })
	return all[len(all)/2], nil
}

// race prints the cost of each program on the same, cached file.
func race(httpctl, capture string, packets int64, runs int) error {
	programs := []struct {
		name string
		runs int
		args []string
	}{
		{"httpctl read", runs, []string{httpctl, "read", "-o", "json", capture}},
		{"tcpdump --count", runs, []string{"tcpdump", "--count", "-r", capture}},
		{"httpry", runs, []string{"httpry", "-q", "-o", os.DevNull, "-r", capture}},
		{"ndpiReader -q", runs, []string{"ndpiReader", "-q", "-i", capture}},
		{"tshark -Y http", 1, []string{"tshark", "-n", "-r", capture, "-Y", "http", "-T", "fields", "-e", "http.request.method", "-e", "http.response.code"}},
	}
	fmt.Printf("%-16s %12s %10s %10s %10s %12s\n", "program", "packets/s", "CPU s", "wall s", "MiB", "x httpctl")
	var first, tshark float64
	var rss int64
	for _, p := range programs {
		c, err := measure(p.runs, p.args[0], p.args[1:]...)
		if err != nil {
			fmt.Printf("%-16s not measured: %.80v\n", p.name, err)
			continue
		}
		speed := float64(packets) / c.wall.Seconds()
		switch {
		case first == 0:
			first, rss = speed, c.rss
		case strings.HasPrefix(p.name, "tshark"):
			tshark = speed
		}
		fmt.Printf("%-16s %12.0f %10.2f %10.2f %10.1f %12.3f\n", p.name, speed, c.cpu.Seconds(), c.wall.Seconds(), float64(c.rss)/(1<<20), speed/first)
	}
	if tshark > 0 {
		fmt.Printf("httpctl reads %.0f times the packets/s of tshark (bar: 20), in %.0f MiB (bar: 150)\n", first/tshark, float64(rss)/(1<<20))
		if first < 20*tshark || rss > 150<<20 {
			return errors.New("a bar is missed")
		}
	}
	return nil
}
