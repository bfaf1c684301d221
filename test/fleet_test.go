// Package test holds the tests that need whole programs, real servers or root.
package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// need skips the test unless the programs are installed and it runs as root.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and packet capture (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW)")
	}
	installed(t, programs...)
}

// installed skips a test without the programs that it uses.
func installed(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if !testkit.Installed(p) {
			t.Skipf("needs %s, which is not installed", p)
		}
	}
}

// start runs a program until the test ends, which stops it with SIGTERM and
// wants exit code 0. Its output is shown if the test fails.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended: %v", strings.Join(cmd.Args, " "), err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(cmd.Args, " "), out.Bytes())
		}
	})
}

// TestFleetEqualsAccessLogs runs two web servers, a client and an aggregator
// on hosts of their own, and wants the totals by host, method, status,
// section, domain, user agent and volume to equal nginx's access logs to the
// unit.
func TestFleetEqualsAccessLogs(t *testing.T) {
	need(t, "ip", "nginx", "curl")
	t.Parallel()
	bin := filepath.Dir(program(t, "httpctl"))
	lab, err := testkit.NewLab("web1", "web2", "client", "center")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)

	certs := testkit.Certificates(t, map[string]netip.Addr{"center": lab.Address("center"), "web1": {}, "web2": {}})
	address := lab.Address("center").String() + ":7420"
	tls := func(name string) string {
		return fmt.Sprintf("  tls:\n    cert_file: %[1]s/%[2]s.pem\n    key_file: %[1]s/%[2]s.key\n    ca_file: %[1]s/ca.pem\n", certs, name)
	}
	write := func(path, text string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}

	data := t.TempDir()
	start(t, lab.Command(ctx, "center", filepath.Join(bin, "httpctl-aggregator"), "--config", write(filepath.Join(data, "aggregator.yaml"),
		"dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: "+data+"\n  listen: ["+address+"]\n"+tls("center")+"  roles: {agent: [web1, web2]}\n")))

	sites := map[string]string{}
	for _, web := range []string{"web1", "web2"} {
		dir := worldReadable(t)
		sites[web] = dir
		conf, err := testkit.WriteNginx(dir, 80)
		if err != nil {
			t.Fatal(err)
		}
		start(t, lab.Command(ctx, web, "nginx", "-c", conf))
		state := t.TempDir()
		start(t, lab.Command(ctx, web, filepath.Join(bin, "httpctl-agent"), "--config", write(filepath.Join(state, "agent.yaml"),
			"agent:\n  host_name: "+web+"\n  state: "+state+"\n  aggregator: "+address+"\n  capture:\n    interfaces: [eth0]\n"+tls(web))))
	}
	query := func(args ...string) (top, error) {
		args = append(args, "-o", "json", "--since", "1h", "--limit", "1000", "--aggregator", "unix:"+data+"/httpctl.sock")
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "httpctl"), args...).Output()
		var answer top
		if err == nil {
			err = json.Unmarshal(out, &answer)
		}
		return answer, err
	}
	// Both agents watch before the first request is sent.
	eventually(t, "both agents report", func() error {
		out, err := exec.CommandContext(ctx, filepath.Join(bin, "httpctl"), "hosts", "-o", "json", "--aggregator", "unix:"+data+"/httpctl.sock").Output()
		if err != nil {
			return err
		}
		if n := strings.Count(string(out), `"reporting"`); n < 2 {
			return fmt.Errorf("%d hosts report:\n%s", n, out)
		}
		return nil
	})

	body := write(filepath.Join(t.TempDir(), "body"), strings.Repeat("field=value&", 20_000))
	for i := range 20 {
		for n, web := range []string{"web1", "web2"} {
			base := "http://" + lab.Address(web).String()
			curl := func(args ...string) {
				t.Helper()
				args = append([]string{"-sS", "-o", "/dev/null", "--max-time", "120"}, args...)
				if out, err := lab.Command(ctx, "client", "curl", args...).CombinedOutput(); err != nil {
					t.Fatalf("curl %v: %v: %s", args, err, out)
				}
			}
			host := fmt.Sprintf("Host: site%d.example.org", i%3)
			curl("-H", host, "-A", "walker/1", base+fmt.Sprintf("/small/[1-%d].txt", 3+n))
			curl("-H", host, base+"/large/"+fmt.Sprint(i+1)+".bin")
			curl("-I", "-H", host, base+"/medium/1.bin")
			curl("-H", host, base+"/missing/page?x="+fmt.Sprint(i))
			curl("-H", host, "--data-binary", "@"+body, base+"/form")
			curl("-H", host, "-H", "Transfer-Encoding: chunked", "--data-binary", "@"+body, base+"/form")
			curl("-H", host, "-X", "DELETE", base+"/small/1.txt")
			curl("-H", host, "--http1.0", base+"/old/page")
			if i%5 == 0 {
				curl("-H", host, "-X", "PUT", "-d", "short", base+"/form")
				curl("-H", host, base+"/broken")
			}
		}
	}

	logs := map[string]*testkit.AccessLog{}
	var want int64
	eventually(t, "nginx writes its logs", func() error {
		var n int64
		for web, dir := range sites {
			log, err := testkit.ReadAccessLog(dir)
			if err != nil {
				return err
			}
			logs[web] = log
			n += log.Requests
		}
		if n != want || n == 0 {
			err := fmt.Errorf("%d requests, then %d", want, n)
			want = n
			time.Sleep(1200 * time.Millisecond) // longer than nginx's flush
			return err
		}
		return nil
	})
	eventually(t, "the aggregator has every bucket", func() error {
		got, err := query("top", "status")
		if err == nil && got.Total != want {
			err = fmt.Errorf("%d responses, want %d", got.Total, want)
		}
		return err
	})

	for web, log := range logs {
		for dimension, keys := range log.Tops {
			got, err := query("top", dimension, "--host", web)
			if err != nil {
				t.Fatalf("top %s --host %s: %v", dimension, web, err)
			}
			if len(got.Rows) != len(keys) {
				t.Errorf("top %s --host %s has %d rows, want %d", dimension, web, len(got.Rows), len(keys))
			}
			for _, row := range got.Rows {
				if row.Hits != keys[row.Key] {
					t.Errorf("top %s --host %s: %q = %d, want %d", dimension, web, row.Key, row.Hits, keys[row.Key])
				}
			}
		}
		got, err := query("top", "volume", "--host", web)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Rows) != len(log.Upload) {
			t.Errorf("top volume --host %s has %d rows, want %d", web, len(got.Rows), len(log.Upload))
		}
		for _, row := range got.Rows {
			if row.Upload != log.Upload[row.Key] || row.Download != log.Download[row.Key] {
				t.Errorf("top volume --host %s: %s = %d up, %d down, want %d, %d", web, row.Key, row.Upload, row.Download, log.Upload[row.Key], log.Download[row.Key])
			}
		}
	}
	t.Logf("%d requests on two hosts: all counts and volumes equal nginx's logs", want)
}

// top is what is used of `httpctl top -o json`.
type top struct {
	Total int64 `json:"total"`
	Rows  []struct {
		Key      string `json:"key"`
		Hits     int64  `json:"hits"`
		Upload   int64  `json:"upload_bytes"`
		Download int64  `json:"download_bytes"`
	} `json:"rows"`
}

// topInJSON asks the aggregator at an address for a top list of the last hour, as a command line does.
func topInJSON(ctx context.Context, t *testing.T, address, dimension string, more ...string) (answer top) {
	t.Helper()
	args := append([]string{"top", dimension, "-o", "json", "--since", "1h", "--limit", "1000", "--aggregator", address}, more...)
	out, err := exec.CommandContext(ctx, program(t, "httpctl"), args...).Output()
	if err != nil {
		t.Fatalf("httpctl %s: %v", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// worldReadable is t.TempDir for servers that give up root.
func worldReadable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "httpctl-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
