// Command demo shows httpctl on live traffic: it starts a web server and
// clients on loopback, runs `httpctl up -i lo` over them with shortened
// settings, makes a surge, and compares the counts at the end. Without the
// right to capture it replays a recording of the same traffic instead.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The settings are those of an ordinary installation, shortened so that
// learning, an alert and its dismissal fit into a minute and a half.
const settings = `timeout: 1s
dashboard_bucket_size: 5s
average_bucket_size: 10s
average_learning_duration: 20s
average_threshold: 50
max_top_hits: 4
`

// The plot, in seconds from the start. Windows tile from the end of learning
// (at 20 to 25 s), so the surge covers at least one of them whole.
var plot = []phase{
	{from: 0, rate: 25},                 // calm: the baseline is learned
	{from: 36 * time.Second, rate: 150}, // the surge
	{from: 58 * time.Second, rate: 25},  // calm again
}

const length = 82 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	record := flag.String("record", "", "record the traffic in `FILE` (packed with gzip) instead of showing it; see demo/README.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if *record != "" {
		return recordTraffic(ctx, *record)
	}

	programs := filepath.Dir(os.Args[0])
	httpctl, err := filepath.Abs(filepath.Join(programs, "httpctl"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(httpctl); err != nil {
		return fmt.Errorf("%w: run `make demo`, which builds it", err)
	}
	dir, err := os.MkdirTemp("", "httpctl-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config := filepath.Join(dir, "demo.yaml")
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	d := &demo{httpctl: httpctl, data: filepath.Join(dir, "data"), config: config}

	if !mayCapture() {
		fmt.Println("Capturing packets needs root (CAP_NET_RAW), which this user has not:")
		fmt.Println("showing a recording of the same traffic instead. For live traffic: sudo make demo")
		pause(ctx, 2*time.Second)
		return d.replay(ctx, filepath.Join(programs, "..", "demo", "recording.pcap.gz"))
	}
	return d.live(ctx)
}

// mayCapture reports whether this process may open a packet socket.
func mayCapture() bool {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

type demo struct {
	httpctl, data, config string
}

// live plays the plot on loopback.
func (d *demo) live(ctx context.Context) error {
	site, err := startSite()
	if err != nil {
		return err
	}
	defer site.stop()
	port := site.addr.(*net.TCPAddr).Port
	fmt.Printf("A web server and its clients talk on 127.0.0.1:%d; httpctl listens to `lo`. Ctrl-C ends it at any time.\n", port)

	// The exit of httpctl ends the demo too: on a terminal it gets the Ctrl-C itself.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, err := d.up(cancel, "-i", "lo", "--ports", strconv.Itoa(port))
	if err != nil {
		return err
	}
	if err := d.ready(ctx); err != nil {
		return errors.Join(err, up.stop())
	}
	play(ctx, site.addr.String(), plot, length)
	return d.conclude(ctx, up, "The web server counted", func() (int64, error) { return site.served.Load(), nil })
}

// replay shows a recording as if it happened now.
func (d *demo) replay(ctx context.Context, recording string) error {
	if _, err := os.Stat(recording); err != nil {
		return fmt.Errorf("the recording is part of the source tree: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, err := d.up(cancel, "--replay", recording)
	if err != nil {
		return err
	}
	pause(ctx, length)
	return d.conclude(ctx, up, "The recording holds", func() (int64, error) {
		out, err := exec.CommandContext(ctx, d.httpctl, "read", "-o", "json", recording).Output()
		if err != nil {
			return 0, fmt.Errorf("httpctl read %s: %w", recording, err)
		}
		var report struct {
			Requests int64 `json:"requests"`
		}
		err = json.Unmarshal(out, &report)
		return report.Requests, err
	})
}

// conclude ends httpctl and compares what it counted with what there was. If
// ctx ends first, because someone has seen enough, it only ends httpctl.
func (d *demo) conclude(ctx context.Context, up *program, whose string, there func() (int64, error)) error {
	pause(ctx, 6*time.Second) // the last interval closes, and with it every request is counted
	var counted, want int64
	var alerts []byte
	var err error
	if ctx.Err() == nil {
		counted, err = d.count(ctx)
	}
	if ctx.Err() == nil && err == nil {
		alerts, err = d.ask(ctx, "alerts", "--since", "5m")
	}
	if ctx.Err() == nil && err == nil {
		want, err = there()
	}
	if err != nil {
		pause(ctx, 100*time.Millisecond) // a Ctrl-C may have reached the program that was asked first
	}
	if ctx.Err() != nil {
		return up.interrupted()
	}
	if err := errors.Join(up.stop(), err); err != nil {
		return err
	}
	fmt.Printf("\n$ httpctl alerts --since 5m\n%s", alerts)
	fmt.Printf("\n%s %d requests, httpctl %d.\n", whose, want, counted)
	if want != counted {
		return fmt.Errorf("the counts differ by %d", want-counted)
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// program is a running `httpctl up`.
type program struct {
	cmd  *exec.Cmd
	done chan error
}

// up starts `httpctl up`; its end calls ended.
func (d *demo) up(ended func(), args ...string) (*program, error) {
	args = append([]string{"up", "--config", d.config, "--data", d.data}, args...)
	p := &program{cmd: exec.Command(d.httpctl, args...), done: make(chan error, 1)}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.done <- p.cmd.Wait()
		ended()
	}()
	return p, nil
}

// stop ends the program as Ctrl-C does, and waits for it.
func (p *program) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	select {
	case err := <-p.done:
		return err
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return errors.New("httpctl did not end within 10 s of an interrupt")
	}
}

// interrupted ends the program after a Ctrl-C. A terminal sends that to every
// program on it, and a second one would end httpctl on the spot: so it gets a
// moment to end by itself.
func (p *program) interrupted() error {
	select {
	case err := <-p.done:
		p.done <- err
	case <-time.After(700 * time.Millisecond):
	}
	err := p.stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return nil // ended by the signal, as was asked for
	}
	return err
}

// ready waits until `httpctl up` answers.
func (d *demo) ready(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := d.ask(ctx, "hosts")
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("httpctl up does not answer: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ask runs a reading command.
func (d *demo) ask(ctx context.Context, args ...string) ([]byte, error) {
	args = append(args, "--aggregator", "unix:"+filepath.Join(d.data, "httpctl.sock"))
	cmd := exec.CommandContext(ctx, d.httpctl, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("httpctl %v: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// count returns the requests that httpctl counted, over all methods.
func (d *demo) count(ctx context.Context) (int64, error) {
	out, err := d.ask(ctx, "top", "method", "-o", "json", "--since", "10m")
	if err != nil {
		return 0, err
	}
	var top struct {
		Total int64 `json:"total"`
	}
	if err := json.Unmarshal(out, &top); err != nil {
		return 0, fmt.Errorf("httpctl top method: %w", err)
	}
	return top.Total, nil
}
