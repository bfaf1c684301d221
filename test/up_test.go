package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUp runs `httpctl up` on the loopback interface as one would on a pipe,
// with other commands beside it.
func TestUp(t *testing.T) {
	need(t)
	t.Parallel()
	home := worldReadable(t)
	bin := program(t, "httpctl")
	data := filepath.Join(home, "httpctl")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") }))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	config := filepath.Join(home, "up.yaml")
	if err := os.WriteFile(config, []byte("dashboard_bucket_size: 1s\naverage_bucket_size: 3s\ntimeout: 300ms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"up", "-i", "lo", "--ports", port, "--data", data, "--config", config, "--web", "127.0.0.1:0"}
	up := exec.Command(bin, args...)
	var out, errs output
	up.Stdout, up.Stderr = &out, &errs
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = up.Process.Kill()
			_ = up.Wait()
		}
		if t.Failed() {
			t.Logf("httpctl up wrote:\n%s\n%s", out.String(), errs.String())
		}
	})
	socket := filepath.Join(data, "httpctl.sock")
	eventually(t, "the socket is there", func() error { _, err := os.Stat(socket); return err })
	eventually(t, "it shows a dashboard", func() error {
		if !strings.Contains(out.String(), "window") {
			return errors.New("nothing yet")
		}
		return nil
	})

	// Other commands, run by another user of the socket's group, find it by the data directory.
	run := func(args ...string) (stdout, stderr string, err error) {
		cmd := exec.Command(bin, args...)
		cmd.Env = []string{"XDG_STATE_HOME=" + home}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 0, NoSetGroups: true}}
		cmd.Dir = "/"
		var o, e bytes.Buffer
		cmd.Stdout, cmd.Stderr = &o, &e
		err = cmd.Run()
		return o.String(), e.String(), err
	}
	const requests = 30
	begin := time.Now()
	for range requests {
		r, err := http.Get(server.URL + "/greeting")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		time.Sleep(100 * time.Millisecond)
	}
	eventually(t, "every request is counted once", func() error {
		stdout, stderr, err := run("top", "section", "-o", "json")
		var answer top
		if err == nil {
			err = json.Unmarshal([]byte(stdout), &answer)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, stderr)
		}
		if answer.Total != requests || len(answer.Rows) != 1 || !strings.HasSuffix(answer.Rows[0].Key, "/greeting") {
			return fmt.Errorf("%s", stdout)
		}
		return nil
	})
	// So does a browser, at the address that it is told.
	_, address, _ := strings.Cut(errs.String(), "httpctl: the web page is at ")
	address, _, _ = strings.Cut(address, "\n")
	if code, body, err := fetchWeb(t, http.DefaultClient, address+"api/v1/top?list=section"); err != nil || code != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"total": %d,`, requests)) {
		t.Errorf("the web page at %q: %d, %v\n%s", address, code, err, body)
	}
	if stdout, stderr, err := run("hosts"); err != nil || !strings.Contains(stdout, "reporting") {
		t.Errorf("httpctl hosts: %v\n%s%s", err, stdout, stderr)
	}
	if stdout, stderr, err := run("alerts", "-o", "json"); err != nil || !strings.Contains(stdout, `"max_duration_seconds"`) {
		t.Errorf("httpctl alerts: %v\n%s%s", err, stdout, stderr)
	}

	// A second one on the same directory is refused, and the first one lives on.
	second := exec.Command(bin, args...)
	text, err := second.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(text), "httpctl.db") {
		t.Errorf("a second httpctl up: %v, %s; want exit code 1 and what is in use", err, text)
	}
	if strings.Count(string(text), "\n") > 3 {
		t.Errorf("a second httpctl up says too much:\n%s", text)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the second one took the first one's socket away: %v", err)
	}

	pictures := func() int { return strings.Count(out.String(), "\nwindow ") + strings.Count(out.String(), " window ") }
	eventually(t, "dashboards follow each other, with the traffic", func() error {
		if n := pictures(); n < 3 || !strings.Contains(out.String(), "/greeting") {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	ran := time.Since(begin)
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	err = up.Wait()
	ended = true
	if err != nil {
		t.Errorf("Ctrl-C ended it with %v, want exit code 0", err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v to end", d)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if n, most := pictures(), int(ran/time.Second)+5; n < 3 || n > most {
		t.Errorf("%d dashboards in %v, want one a second", n, ran)
	}
	if strings.ContainsAny(out.String(), "\x1b\r\a") {
		t.Error("there are escape codes on a pipe")
	}
}
