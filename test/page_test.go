package test

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// nodeScript returns a command that runs a script of web/ with Node, after it has found the packages that that needs.
func nodeScript(t *testing.T, packages []string, script string, args ...string) *exec.Cmd {
	t.Helper()
	web := filepath.Join(testkit.ModuleRoot(t), "web")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node (Debian's nodejs): run scripts/test-tools as root")
	}
	for _, name := range packages {
		if _, err := os.Stat(filepath.Join(web, "node_modules", name)); err != nil {
			t.Skipf("needs the package %s of npm: run scripts/test-tools, or npm ci in web", name)
		}
	}
	cmd := exec.CommandContext(t.Context(), node, append([]string{filepath.Join(web, script)}, args...)...)
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = web, os.Stderr, 5*time.Second
	// A browser leaves directories where others have theirs, and may still be leaving when the script has ended.
	cmd.Env = append(os.Environ(), "TMPDIR="+worldReadable(t))
	return cmd
}

// webTools returns a command that runs a script of web/ with Node and Chromium.
func webTools(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := nodeScript(t, []string{"playwright-core", "axe-core"}, script, args...)
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		var err error
		if chromium, err = exec.LookPath("chromium"); err != nil {
			t.Skip("needs chromium (or CHROMIUM, its path): run scripts/test-tools as root")
		}
	}
	cmd.Env = append(cmd.Env, "CHROMIUM="+chromium)
	return cmd
}

// visits are n exchanges of the interval that begins at start, hostile ones among them.
func visits(start int64, n int) (out []known) {
	for i := range n {
		k := known{domain: "shop.example.org", section: "shop.example.org/cart", method: "GET", status: "200", role: "server", server: "192.0.2.10:80",
			client: "198.51.100.7", agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", at: start + int64(i)*1000, up: 400, down: 9000}
		switch i % 10 {
		case 0:
			k.status, k.method = "503", "POST"
		case 1:
			k.domain, k.section, k.status = "api.example.org", "api.example.org/v1", "404"
		case 2:
			k.section, k.agent = "shop.example.org/<script>alert(1)<", `"><img src=x onerror=alert(document.domain)>`
		case 3:
			k.domain, k.section, k.agent = "evil\u202egro.elpmaxe", "evil\u202egro.elpmaxe/", "curl/8\x1b]0;owned\x07"
		case 5:
			k.section, k.agent = `shop.example.org/a,"b"`, "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 (KHTML, like Gecko)"
		case 4:
			k.domain, k.section, k.server = "static.example.org", "static.example.org/img", "[2001:db8::10]:8080"
		}
		out = append(out, k)
	}
	return out
}

// thousand is an interval of as many hosts, a minute ago.
func thousand(t *testing.T, width time.Duration) (batch []store.Item) {
	t.Helper()
	start := time.Now().Add(-time.Minute).Truncate(width).UnixNano()
	list := visits(start, 3)
	for h := range 1000 {
		id := bucket.ID{200, byte(h >> 8), byte(h)}
		b := &bucket.Bucket{Header: bucket.Header{Name: bucket.Name{Host: id, Start: start, Incarnation: id}, HostName: fmt.Sprintf("web-%04d", h),
			Width: width, Final: true, ClosedThrough: start + int64(width), ObservedFrom: start}}
		b.Counters[exchange.Requests] = uint64(len(list))
		fill(t, b, list)
		batch = append(batch, storetest.Item(t, b))
	}
	return batch
}

// TestPage drives the page of a real aggregator, with a thousand hosts and live traffic, in Chromium.
func TestPage(t *testing.T) {
	t.Parallel()
	address := freePort(t) // the same after the restart
	cmd := webTools(t, "test/page.mjs", "http://"+address+"/")
	c := newCenter(t, func(s *config.Settings, cfg *aggregator.Config) {
		cfg.Web.Listen = []string{address}
		s.HostGoneAfter = time.Hour // the thousand are peers to the end, on a busy machine too
		prefill(t, *cfg, thousand(t, s.DashboardBucketSize))
	})
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f := feed(t, c, 1)
	sent := f.ago(20 * time.Second) // learning is over when the page is first looked at
	deliver := func() {
		for next := sent + f.settings.IntervalWidthNs; next+f.settings.IntervalWidthNs <= time.Now().UnixNano(); next += f.settings.IntervalWidthNs {
			n := 40
			if f.sent%30 > 20 { // which alerts
				n = 120
			}
			b := f.make(next, 0)
			b.Counters[exchange.Requests] = uint64(n)
			fill(t, b, visits(next, n))
			f.send(b)
			sent = next
		}
	}
	deliver()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := 0
	for {
		select {
		case <-tick.C:
			if c.app != nil {
				deliver()
			}
			continue
		case line, more := <-lines:
			if !more {
				if err := cmd.Wait(); err != nil {
					t.Errorf("the browser's script: %v", err)
				}
				if said < 10 {
					t.Errorf("the browser's script says %d things, want 10", said)
				}
				return
			}
			word, rest, _ := strings.Cut(line, " ")
			switch {
			case word == "ok":
				said++
				t.Log(line)
			case line == "please stop":
				c.stop()
				fmt.Fprintln(in)
			case line == "please start":
				c.start()
				f = feed(t, c, 2)
				fmt.Fprintln(in)
			case word == "note":
				t.Log(rest)
			default:
				said++
				t.Error(line)
			}
		}
	}
}

// TestPageAssets: what is embedded is what web/ makes.
func TestPageAssets(t *testing.T) {
	t.Parallel()
	cmd := nodeScript(t, []string{"esbuild"}, "build.mjs", "--check")
	cmd.Stderr = nil
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("aggregator/web/assets: %v: %s: run make web", err, out)
	}
}

// TestOpenAPI: the description of the API is one by the rules of OpenAPI, as a validator of others sees them.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	cmd := nodeScript(t, []string{"@seriousme/openapi-schema-validator"}, "test/openapi.mjs")
	page := freePort(t)
	newCenter(t, func(_ *config.Settings, c *aggregator.Config) { c.Web.Listen = []string{page} })
	client := &http.Client{}
	defer client.CloseIdleConnections()
	code, body, err := fetchWeb(t, client, "http://"+page+"/api/v1/openapi.json")
	if err != nil || code != http.StatusOK {
		t.Fatalf("openapi.json: %d, %v", code, err)
	}
	cmd.Stdin = strings.NewReader(body)
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "3.1" {
		t.Errorf("the description is not valid: %v: %s", err, out)
	}
	cmd = nodeScript(t, nil, "test/openapi.mjs")
	cmd.Stdin = strings.NewReader(strings.Replace(body, `"in": "query"`, `"in": "quarry"`, 1))
	if out, err := cmd.Output(); err == nil || !strings.Contains(string(out), "/paths") {
		t.Errorf("a fault in it is not found: %v: %s", err, out)
	}
}
