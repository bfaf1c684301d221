package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestNames: only names under which the aggregator is reached are answered.
func TestNames(t *testing.T) {
	x := newSite(t)
	port := x.url[strings.LastIndexByte(x.url, ':') : len(x.url)-1]
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST" + port: 200, "localhost.": 200, "127.0.0.1": 200, "127.9.8.7:1": 200, "[::1]": 200, "[::1]:80": 200, "[::ffff:127.0.0.1]": 200,
		"monitor.example.org": 200, "monitor.example.org:443": 200,
		"evil.example": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example" + port: 403, "192.0.2.1": 403, "0.0.0.0": 403, "xmonitor.example.org": 403,
		"localhost@evil.example": 403, "[::]": 403, "2130706433": 403, "127.1": 403,
	} {
		if a, body := x.get("api/v1/hosts", "Host", host); a.StatusCode != want {
			t.Errorf("Host %s: %s, want %d: %s", host, a.Status, want, body)
		}
		if a, _ := x.get("", "Host", host); a.StatusCode != want {
			t.Errorf("Host %s: the page is %s, want %d", host, a.Status, want)
		}
	}
}

// TestOtherSites: pages elsewhere have nothing asked here, but may link.
func TestOtherSites(t *testing.T) {
	x := newSite(t)
	for site, want := range map[string][2]int{"same-origin": {200, 200}, "none": {200, 200}, "same-site": {403, 200}, "cross-site": {403, 200}, "new-kind": {403, 200}} {
		a, _ := x.get("api/v1/hosts", "Sec-Fetch-Site", site)
		b, _ := x.get("", "Sec-Fetch-Site", site)
		if a.StatusCode != want[0] || b.StatusCode != want[1] {
			t.Errorf("%s: %s and %s, want %v", site, a.Status, b.Status, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	x := newSite(t)
	for _, path := range []string{"", "api/v1/hosts", "api/v1/nothing", "api/v1/top"} {
		a, _ := x.get(path)
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"Access-Control-Allow-Origin": "", "Set-Cookie": "",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("/%s: %s: %q, want %q", path, name, got, want)
			}
		}
		csp := a.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp+";", want+";") {
				t.Errorf("/%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("/%s: the policy is %q", path, csp)
		}
	}
}

// TestFailurePage: a person who is refused reads a page, which has nothing in it but its own style, and no markup of others.
func TestFailurePage(t *testing.T) {
	x := newSite(t)
	for path, want := range map[string]int{"": 403, "api/v1/hosts": 403, "nothing/%3Cb%3Ethere%3C%2Fb%3E": 404} {
		host := "localhost"
		if want == 403 {
			host = "evil.example"
		}
		a, body := x.get(path, "Accept", "text/html,*/*;q=0.8", "Host", host)
		page := !strings.HasPrefix(path, "api/")
		if a.StatusCode != want || strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") != page || strings.HasPrefix(body, "<!doctype html>") != page {
			t.Errorf("/%s: %s %s, want %d: %s", path, a.Status, a.Header.Get("Content-Type"), want, body)
		}
		if !page {
			continue
		}
		_, style, _ := strings.Cut(body, "<style>")
		style, _, _ = strings.Cut(style, "</style>")
		sum := sha256.Sum256([]byte(style))
		csp := a.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "'self'") {
			t.Errorf("/%s: the policy %q does not fit the style", path, csp)
		}
		if strings.Contains(body, "<b>") || want == 404 && !strings.Contains(body, "&lt;b&gt;there") {
			t.Errorf("/%s: markup of the question is in the page: %s", path, body)
		}
	}
}

// TestPage: the page is sent once, and packed.
func TestPage(t *testing.T) {
	x := newSite(t)
	plain, body := x.get("?host=web-1&since=15m")
	if plain.StatusCode != 200 || plain.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, "<title>httpctl") {
		t.Fatalf("%s %s: %s", plain.Status, plain.Header.Get("Content-Type"), body)
	}
	packed, bytesOf := x.get("", "Accept-Encoding", "br;q=0, gzip")
	z, err := gzip.NewReader(strings.NewReader(bytesOf))
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(z); err != nil || string(unpacked) != body || packed.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("the packed page differs: %v", err)
	}
	tag := packed.Header.Get("Etag")
	if tag == "" || tag == plain.Header.Get("Etag") {
		t.Errorf("tags %q and %q of two codings", tag, plain.Header.Get("Etag"))
	}
	if a, body := x.get("", "Accept-Encoding", "gzip", "If-None-Match", `"x", `+tag); a.StatusCode != 304 || body != "" {
		t.Errorf("who has it got %s, %d bytes", a.Status, len(body))
	}
	for _, path := range []string{"index.html", "assets/", "assets/../doc.go", "assets/index.html", "web.go"} {
		if a, _ := x.get(path); a.StatusCode != 404 {
			t.Errorf("/%s: %s, want 404", path, a.Status)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, x.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := x.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if a.Body.Close(); a.StatusCode != 200 || a.ContentLength != int64(len(body)) {
		t.Errorf("HEAD: %s, %d bytes, want %d", a.Status, a.ContentLength, len(body))
	}
}

// TestPackedAssets: what the build has packed is used, and is no file of its own.
func TestPackedAssets(t *testing.T) {
	assets, err := readAssets(fstest.MapFS{"assets/app.js": {Data: bytes.Repeat([]byte("x"), 100)}, "assets/app.js.br": {Data: []byte("brotli")}, "assets/x.svg": {Data: []byte("<svg/>")}})
	if err != nil {
		t.Fatal(err)
	}
	js := assets["/assets/app.js"]
	if js == nil || string(js.packed["br"]) != "brotli" || js.packed["gzip"] == nil || js.kind != "text/javascript; charset=utf-8" || assets["/assets/app.js.br"] != nil {
		t.Errorf("assets are %v", assets)
	}
	if svg := assets["/assets/x.svg"]; svg.kind != "image/svg+xml" || svg.packed["gzip"] != nil {
		t.Errorf("what packing makes larger is packed: %v", svg)
	}
}

func TestAccepts(t *testing.T) {
	for header, want := range map[string]bool{"gzip": true, "GZIP": true, "br, gzip;q=0.1": true, "*": true, "gzip;q=0": false, "gzip;q=0, *": false, "identity": false, "": false, "gzip;q=x": false, "xgzip": false} {
		r := &http.Request{Header: http.Header{"Accept-Encoding": {header}}}
		if got := accepts(r, "gzip"); got != want {
			t.Errorf("accepts(%q) = %v", header, got)
		}
	}
}

// TestConnectionsAreBounded: beyond the limit a connection is closed, and there is room again when others end.
func TestConnectionsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	x := newSite(t, func(_ *Config, d *Deps) { d.Registry = registry })
	address := x.url[len("http://") : len(x.url)-1]
	var open []net.Conn
	for range maxConnections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		n := x.connections
		x.mu.Unlock()
		if n == maxConnections {
			break
		}
		if time.Since(begin) > 3*time.Minute {
			t.Fatalf("%d connections were accepted", n)
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Minute))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("one more connection: %v, want its end", err)
	}
	_ = c.Close()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "httpctl_web_refused_total" && m.GetLabel()[0].GetValue() == tooManyConnections {
				refused = m.GetCounter().GetValue()
			}
		}
	}
	if refused != 1 {
		t.Errorf("%v were counted as refused", refused)
	}
	for _, c := range open {
		_ = c.Close()
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if a, err := x.client.Get(x.url); err == nil {
			a.Body.Close()
			break
		}
		if time.Since(begin) > 3*time.Minute {
			t.Fatal("there is no room when all have gone")
		}
	}
}

// TestLargeHeads: a head that never ends is not read.
func TestLargeHeads(t *testing.T) {
	x := newSite(t)
	a, err := x.client.Get(x.url + "api/v1/hosts?host=" + strings.Repeat("a", 64<<10))
	if err != nil {
		return // the connection was closed before all of it was sent
	}
	if a.Body.Close(); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a question of 64 KiB: %s", a.Status)
	}
}

// TestOptionalAddress: an address that nobody chose and something else has is left out.
func TestOptionalAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, optional := range []bool{true, false} {
		s, err := New(Config{Listen: []string{l.Addr().String()}, Optional: optional}, newSite(t).deps)
		if err != nil {
			t.Fatal(err)
		}
		if err = s.Start(t.Context()); (err == nil) != optional || optional && len(s.URLs()) != 0 {
			t.Errorf("optional=%v: %v, %v", optional, err, s.URLs())
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
