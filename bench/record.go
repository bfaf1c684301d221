package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	_ "embed"

	"github.com/httpctl/httpctl/pkg/testkit"
)

//go:embed wrk.lua
var wrkScript string

// record makes the capture: nginx on one host of a lab, wrk on another.
func record(dir, capture string, requests int) (err error) {
	conf, err := testkit.WriteNginx(dir, 80)
	if err != nil {
		return err
	}
	script := filepath.Join(dir, "wrk.lua")
	if err := os.WriteFile(script, []byte(wrkScript), 0o644); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(dir, "access.log"))

	lab, err := testkit.NewLab("server", "client")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var running []*exec.Cmd
	defer func() {
		for _, cmd := range running {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
		if e := lab.Close(); err == nil {
			err = e
		}
	}()
	// Frames of at most the MTU, as between two machines.
	for _, host := range []string{"server", "client"} {
		if out, err := lab.Command(ctx, host, "ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off").CombinedOutput(); err != nil {
			return fmt.Errorf("ethtool: %w: %s", err, out)
		}
	}
	background := func(name string, args ...string) (*exec.Cmd, error) {
		cmd := lab.Command(ctx, "server", name, args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return cmd, nil
	}
	nginx, err := background("nginx", "-c", conf)
	if err != nil {
		return err
	}
	running = append(running, nginx)
	part := capture + ".part"
	tcpdump, err := background("tcpdump", "-i", "eth0", "-B", "524288", "-s", "0", "-Z", "root", "-w", part, "tcp port 80")
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // both are up, and tcpdump has its filter

	const threads = 2
	url := "http://" + lab.Address("server").String() + "/"
	// wrk runs for a time, not for a number: the script makes it fall silent
	// once its requests are answered, here within half the time.
	seconds := 10 + requests/2000
	wrk := lab.Command(ctx, "client", "wrk", "-t", fmt.Sprint(threads), "-c", "32", "-d", fmt.Sprint(seconds, "s"), "-s", script, url)
	wrk.Env = append(os.Environ(), fmt.Sprintf("REQUESTS=%d", requests/threads))
	out, err := wrk.CombinedOutput()
	if err != nil {
		_ = tcpdump.Process.Kill()
		return fmt.Errorf("wrk: %w: %s", err, out)
	}
	fmt.Printf("%s", out)
	time.Sleep(2 * time.Second) // the log and the last packets are flushed
	if err := tcpdump.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := tcpdump.Wait(); err != nil {
		return fmt.Errorf("tcpdump: %w", err)
	}
	return os.Rename(part, capture)
}
