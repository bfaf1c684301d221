package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// recordTraffic plays the plot and keeps its packets in path, as tcpdump saw
// them. It needs tcpdump and the right to capture.
func recordTraffic(ctx context.Context, path string) (err error) {
	site, err := startSite()
	if err != nil {
		return err
	}
	defer site.stop()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	port := site.addr.(*net.TCPAddr).Port
	// -U and a large -B: every packet is kept, and reaches the file before the end.
	cmd := exec.Command("tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-U", "-w", "-", fmt.Sprintf("tcp port %d", port))
	cmd.Stdout = packed
	messages, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(messages)
	first, err := lines.ReadString('\n') // "tcpdump: listening on lo, ..."
	if err != nil || !strings.Contains(first, "listening") {
		_ = cmd.Process.Kill() // what it said before tells why
		return errors.Join(fmt.Errorf("tcpdump: %s", strings.TrimSpace(first)), err, cmd.Wait())
	}
	fmt.Printf("recording %v of traffic on port %d\n", length, port)
	play(ctx, site.addr.String(), plot, length)
	pause(ctx, time.Second) // the last connections close
	stopErr := cmd.Process.Signal(os.Interrupt)
	summary, readErr := io.ReadAll(lines)
	fmt.Printf("%sthe web server counted %d requests\n", summary, site.served.Load())
	return errors.Join(stopErr, readErr, cmd.Wait(), packed.Close())
}
