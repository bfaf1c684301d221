package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// fetchWeb asks a web page, with headers as name, value.
func fetchWeb(t *testing.T, c *http.Client, url string, header ...string) (code int, body string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	a, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), err
}

// TestWebEqualsCommandLine: the API gives, byte for byte, what httpctl prints with -o json, of a range that is over.
func TestWebEqualsCommandLine(t *testing.T) {
	t.Parallel()
	page := freePort(t)
	c := newCenter(t, func(_ *config.Settings, c *aggregator.Config) { c.Web.Listen = []string{page} })
	file, want := traffic(t, 7, 3*time.Second, 40)
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), file)
	c.settled("the traffic is stored", want)
	over := time.Now()
	until := over.UTC().Format(time.RFC3339Nano)
	eventually(t, "the range is over for the host, too", func() error {
		hosts, err := c.client.Hosts(t.Context(), client.Question{})
		if err == nil && (len(hosts) != 1 || !hosts[0].CoveredThrough.After(over)) {
			err = fmt.Errorf("%+v", hosts)
		}
		return err
	})
	web := &http.Client{}
	for _, q := range []struct{ command, path string }{
		{"top", "lists"},
		{"top section --since 1h", "top?list=section&since=1h"},
		{"top routes --since 1h --status 5xx,404 --method GET --method POST -n 3", "top?list=routes&since=1h&status=5xx,404&method=GET&method=POST&limit=3"},
		{"top server --since 1h --sort-by=-ttfb_p99_seconds --columns key,hits,ttfb_p99_seconds", "top?list=server&since=1h&sort-by=-ttfb_p99_seconds&columns=key,hits,ttfb_p99_seconds"},
		{"top user_agent --since 1h --filter user_agent=walker/1", "top?list=user_agent&since=1h&filter=user_agent%3Dwalker/1"},
		{"series --since 1h --step 1m --host web-1", "series?since=1h&step=1m&host=web-1"},
		{"series --since 1h --domain site1.example.org", "series?since=1h&domain=site1.example.org"},
		{"series --since 1h --step 10m --outcomes", "series?since=1h&step=10m&outcomes=true"},
		{"hosts --since 1h --columns name,health,requests,rate", "hosts?since=1h&columns=name,health,requests,rate"},
		{"alerts --since 1h", "alerts?since=1h"},
		{"compare --since 10m --against 1h", "compare?since=10m&against=1h"},
		{"compare section --since 10m -n 2", "compare?list=section&since=10m&limit=2"},
		{"explain section site1.example.org/part1 --since 1h", "explain?list=section&key=site1.example.org/part1&since=1h"},
		{"explain routes --since 1h --columns host,hits,error", "explain?list=routes&since=1h&columns=host,hits,error"},
	} {
		args := append(strings.Fields(q.command), "-o", "json", "--aggregator", c.address())
		address := "http://" + page + "/api/v1/" + q.path
		if strings.Contains(q.command, "--since") {
			// A moment that has passed on both sides, and a range of whole seconds.
			since := time.Now().Add(-time.Hour).UTC().Truncate(time.Minute).Format(time.RFC3339)
			for i, a := range args {
				if a == "--since" {
					args[i+1] = since
				}
			}
			args = append(args, "--until", until)
			base, query, _ := strings.Cut(address, "?")
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			values.Set("since", since)
			values.Set("until", until)
			address = base + "?" + values.Encode()
		}
		var body string
		eventually(t, strings.Join(args, " "), func() error { // how a host is may change between the two
			s := try(t, nil, append([]string{"httpctl"}, args...)...)
			code, text, err := fetchWeb(t, web, address)
			if body = text; err != nil || code != http.StatusOK || s.code != 0 || body != s.stdout {
				return fmt.Errorf("httpctl %s (exit %d)\n%s%s\nGET %s: %d, %v\n%s", strings.Join(args, " "), s.code, s.stdout, s.stderr, address, code, err, body)
			}
			return nil
		})
		if len(body) < 80 || !json.Valid([]byte(body)) {
			t.Errorf("GET %s: %s", address, body)
		}
	}
	web.CloseIdleConnections()
}

// TestWebStreams: what an agent sends is in the stream, before its interval is over.
func TestWebStreams(t *testing.T) {
	t.Parallel()
	page := freePort(t)
	c := newCenter(t, func(_ *config.Settings, c *aggregator.Config) { c.Web.Listen = []string{page} })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+page+"/api/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	file, want := traffic(t, 8, 4*time.Second, 25)
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), file)
	lines := bufio.NewScanner(a.Body)
	lines.Buffer(nil, 1<<20)
	last := int64(0)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var d struct{ Status struct{ Requests int64 } }
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if d.Status.Requests > want.requests {
			t.Fatalf("the stream has %d requests of %d", d.Status.Requests, want.requests)
		}
		if last = d.Status.Requests; last == want.requests {
			return
		}
	}
	t.Errorf("the stream ended at %d requests of %d: %v", last, want.requests, lines.Err())
}

// TestWebRoles: on an address with TLS the certificate says who may read, as over gRPC.
func TestWebRoles(t *testing.T) {
	t.Parallel()
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "somebody": {}})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	trust, err := security.ServerConfig(files("somebody"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[string]int{"": 403, "agent": 403, "viewer": 200, "admin": 200, "none": 403, "plain": 400} {
		settings, center := quick(), aggregator.DefaultConfig()
		center.Data, center.Listen, center.Web.Listen, center.TLS = t.TempDir(), nil, []string{freePort(t)}, files("center")
		switch role {
		case "agent":
			center.Roles.Agent = []string{"somebody"}
		case "viewer", "none", "plain":
			center.Roles.Viewer = []string{"some*"}
		case "admin":
			center.Roles.Admin = []string{"somebody"}
		}
		app, err := aggregator.Start(t.Context(), settings, center, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		shown := &tls.Config{RootCAs: trust.ClientCAs, Certificates: trust.Certificates}
		if role == "none" {
			shown.Certificates = nil
		}
		scheme := "https"
		if role == "plain" {
			scheme = "http"
		}
		for _, h2 := range []bool{false, true} {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: shown, ForceAttemptHTTP2: h2}}
			for _, path := range []string{"/", "/api/v1/dashboard", "/api/v1/lists"} {
				code, body, err := fetchWeb(t, client, scheme+"://"+center.Web.Listen[0]+path)
				if code != want || err != nil || want == 403 && !strings.Contains(body, "aggregator.roles.viewer") {
					t.Errorf("with the role %q, GET %s: %d, %v, want %d: %s", role, path, code, err, want, body)
				}
			}
			if role == "viewer" {
				if code, _, _ := fetchWeb(t, client, "https://"+center.Web.Listen[0]+"/", "Host", "center"); code != 200 {
					t.Errorf("a name of the certificate: %d", code)
				}
				if code, _, _ := fetchWeb(t, client, "https://"+center.Web.Listen[0]+"/", "Host", "evil.example"); code != 403 {
					t.Errorf("another name: %d", code)
				}
			}
			client.CloseIdleConnections()
		}
		if err := app.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestWebRevoked: a stream ends when its certificate is revoked, and nothing more is answered.
func TestWebRevoked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, page := filepath.Join(dir, "data"), freePort(t)
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	commanded(t, "httpctl", "ca", "issue", "--data", data, "alice", "-o", filepath.Join(dir, "alice"))
	center := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
		fmt.Sprintf("timeout: 300ms\naggregator:\n  data: %s\n  listen: []\n  web: {listen: ['%s']}\n", data, page)))
	center.says(t, "serving the web page")
	config, err := security.ServerConfig(security.TLS{CertFile: filepath.Join(dir, "alice", "alice.pem"), KeyFile: filepath.Join(dir, "alice", "alice.key"), CAFile: filepath.Join(dir, "alice", "ca.pem")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h2 := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: config.ClientCAs, Certificates: config.Certificates}}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+page+"/api/v1/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(r)
		if err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("alice watches: %v, %v", a, err)
		}
		lines := bufio.NewScanner(a.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() && lines.Text() != "event: dashboard" {
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for lines.Scan() {
			}
		}()
		commanded(t, "httpctl", "revoke", "viewer/alice", "--aggregator", "unix:"+filepath.Join(data, "httpctl.sock"))
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the stream goes on")
		}
		a.Body.Close()
		// The connection that is there, and a new one.
		code, body, err := fetchWeb(t, client, "https://"+page+"/api/v1/hosts")
		if err == nil && (code != http.StatusForbidden || !strings.Contains(body, "revoked")) {
			t.Errorf("after she was revoked: %d %s", code, body)
		}
		client.CloseIdleConnections()
		if code, _, err := fetchWeb(t, client, "https://"+page+"/api/v1/hosts"); err == nil {
			t.Errorf("a new connection is answered: %d", code)
		}
		commanded(t, "httpctl", "revoke", "viewer/alice", "--undo", "--aggregator", "unix:"+filepath.Join(data, "httpctl.sock"))
		client.CloseIdleConnections()
	}
}

// showWeb shows the settings of the web page.
func showWeb(t *testing.T) {
	page := freePort(t)
	newCenter(t, func(_ *config.Settings, c *aggregator.Config) {
		c.Web.Listen, c.Web.Hosts = []string{page}, []string{"monitor.example.org"}
	})
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for host, want := range map[string]int{page: 200, "monitor.example.org": 200, "other.example.org": 403} {
		if code, body, err := fetchWeb(t, client, "http://"+page+"/api/v1/status", "Host", host); err != nil || code != want {
			t.Errorf("Host %s: %d, %v, want %d: %s", host, code, err, want, body)
		}
	}
	if _, _, err := fetchWeb(t, client, "http://"+freePort(t)+"/"); err == nil {
		t.Error("there is a page where none is served")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	// Nothing but loopback without TLS.
	s := try(t, nil, "httpctl-aggregator", "--check", "--config", write(t, "open.yaml", "aggregator:\n  data: /tmp\n  web: {listen: ['0.0.0.0:7480', 'unix:/x'], hosts: ['a:1']}\n"))
	for _, want := range []string{"aggregator.web.listen", "0.0.0.0:7480 is not a loopback address", "browsers know no Unix sockets", "aggregator.web.hosts"} {
		if s.code != 2 || !strings.Contains(s.stderr, want) {
			t.Errorf("exit %d, %q; want 2 and %q", s.code, s.stderr, want)
		}
	}
}
