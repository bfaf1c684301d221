package test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// quick are settings under which a test need not wait for minutes.
func quick() config.Settings {
	s := config.DefaultSettings()
	s.Timeout = 200 * time.Millisecond
	s.DashboardBucketSize, s.AverageBucketSize = time.Second, 5*time.Second
	return s
}

// center is an aggregator in this process, which can be stopped and started
// again on the same data.
type center struct {
	t        *testing.T
	settings config.Settings
	cfg      aggregator.Config
	app      *aggregator.App
	client   *client.Client
}

// newCenter starts an aggregator. change, if not nil, sets what is to be other than quick.
func newCenter(t *testing.T, change func(*config.Settings, *aggregator.Config)) *center {
	t.Helper()
	c := &center{t: t, settings: quick(), cfg: aggregator.DefaultConfig()}
	c.cfg.Data, c.cfg.Listen = t.TempDir(), nil
	if change != nil {
		change(&c.settings, &c.cfg)
	}
	c.start()
	c.connect()
	return c
}

// prefill makes the database of an aggregator that has not started.
func prefill(t *testing.T, cfg aggregator.Config, batch []store.Item) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(cfg.Data, "httpctl.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Append(t.Context(), batch)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// connect opens the client, which is closed at the test's end, as is the aggregator stopped.
func (c *center) connect() {
	c.t.Helper()
	var err error
	if c.client, err = client.New(client.Options{Address: c.address()}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		c.client.Close()
		c.stop()
	})
}

func (c *center) address() string { return "unix:" + config.SocketPath(c.cfg.Data) }

func (c *center) start() {
	c.t.Helper()
	check := config.File{Settings: c.settings}
	if err := check.Settings.Validate(nil); err != nil {
		c.t.Fatal(err)
	}
	app, err := aggregator.Start(c.t.Context(), c.settings, c.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	c.app = app
}

func (c *center) stop() {
	if c.app == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.app.Stop(ctx); err != nil {
		c.t.Error(err)
	}
	c.app = nil
}

// agentConfig is an agent of the aggregator at address, called name.
func agentConfig(address, state, name string) agent.Config {
	cfg := agent.DefaultConfig()
	cfg.Aggregator, cfg.State, cfg.HostName, cfg.BackoffMax = address, state, name, 500*time.Millisecond
	cfg.LocalNetworks = []string{serverAddress}
	return cfg
}

// watcher is an agent in this process that replays a capture.
type watcher struct {
	t    *testing.T
	app  *agent.Agent
	once sync.Once
}

func startWatcher(t *testing.T, settings config.Settings, cfg agent.Config, file string) *watcher {
	t.Helper()
	app, err := agent.Start(t.Context(), settings, cfg, file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, app: app}
	t.Cleanup(w.stop)
	return w
}

func (w *watcher) stop() {
	w.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.app.Stop(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

const serverAddress = "192.0.2.80"

// truth is what generated traffic holds, counted while it is made.
type truth struct {
	requests int64
	tops     map[string]map[string]int64 // dimension -> key -> hits
	upload   map[string]int64            // wire bytes by domain
	download map[string]int64
}

func newTruth() *truth {
	return &truth{tops: map[string]map[string]int64{"section": {}, "domain": {}, "method": {}, "status": {}, "user_agent": {}},
		upload: map[string]int64{}, download: map[string]int64{}}
}

func (w *truth) add(o *truth) {
	w.requests += o.requests
	for d, keys := range o.tops {
		for k, n := range keys {
			w.tops[d][k] += n
		}
	}
	for k, n := range o.upload {
		w.upload[k] += n
		w.download[k] += o.download[k]
	}
}

// traffic makes a capture of the given length with perSecond exchanges a
// second on several keep-alive connections, some of which never end. Each seed
// is other traffic.
func traffic(t *testing.T, seed uint64, length time.Duration, perSecond int) (file string, want *truth) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	want = newTruth()
	var connections []*testkit.Conversation
	for i := range 8 {
		c := testkit.NewConversation(fmt.Sprintf("192.0.2.%d:%d", 1+seed%50, 40000+i), serverAddress+":80")
		c.Step = 10 * time.Microsecond
		c.Open()
		connections = append(connections, c)
	}
	n := int(length/time.Second) * perSecond
	for i := range n {
		c := connections[i%len(connections)]
		c.Now = testkit.Start.Add(time.Duration(i)*length/time.Duration(n) + 500*time.Microsecond)
		domain := fmt.Sprintf("site%d.example.org", r.IntN(3))
		section := fmt.Sprintf("part%d", r.IntN(5))
		method := []string{"GET", "POST", "DELETE"}[r.IntN(3)]
		status := []string{"200", "204", "404", "503"}[r.IntN(4)]
		agent := r.IntN(60)
		ua := fmt.Sprintf("walker/%d", agent)
		if agent >= 4 { // with these, some buckets are large enough for the newer format
			ua += fmt.Sprintf(" (%0150d)", seed)
		}
		body := ""
		if method == "POST" {
			body = fmt.Sprintf("%0*d", 1+r.IntN(3000), 7)
		}
		request := fmt.Sprintf("%s /%s/%d HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nContent-Length: %d\r\n\r\n%s", method, section, i, domain, ua, len(body), body)
		answer := ""
		if status != "204" {
			answer = fmt.Sprintf("%0*d", 1+r.IntN(5000), 8)
		}
		response := fmt.Sprintf("HTTP/1.1 %s X\r\nContent-Length: %d\r\n\r\n%s", status, len(answer), answer)
		if status == "204" {
			response = "HTTP/1.1 204 X\r\n\r\n"
		}
		c.ToServer(request)
		c.ToClient(response)
		want.requests++
		for dimension, key := range map[string]string{"section": domain + "/" + section, "domain": domain, "method": method, "status": status, "user_agent": ua} {
			want.tops[dimension][key]++
		}
		want.upload[domain] += int64(len(request))
		want.download[domain] += int64(len(response))
	}
	for _, c := range connections[:4] {
		c.Close()
	}
	return testkit.WriteFile(t, testkit.Merge(connections...)...), want
}

// differs tells the first difference between what the aggregator answers and
// the truth, nil if there is none.
func (c *center) differs(want *truth) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, dimension := range []string{"section", "domain", "method", "status", "user_agent"} {
		got, err := c.client.Top(ctx, dimension, client.Question{Limit: 1000})
		if err != nil {
			return err
		}
		if got.Total != want.requests || len(got.Rows) != len(want.tops[dimension]) {
			return fmt.Errorf("top %s has %d in %d rows, want %d in %d", dimension, got.Total, len(got.Rows), want.requests, len(want.tops[dimension]))
		}
		for _, row := range got.Rows {
			if row.Values[0].Number != want.tops[dimension][row.Keys[0]] || row.Error != 0 {
				return fmt.Errorf("top %s: %q = %d ± %d, want %d", dimension, row.Keys[0], row.Values[0].Number, row.Error, want.tops[dimension][row.Keys[0]])
			}
		}
	}
	got, err := c.client.Top(ctx, "volume", client.Question{Limit: 1000})
	if err != nil {
		return err
	}
	for _, row := range got.Rows {
		values := map[string]int64{}
		for i, column := range got.Columns {
			values[column.Name] = row.Values[i].Number
		}
		if up, down := values["upload"], values["download"]; up != want.upload[row.Keys[0]] || down != want.download[row.Keys[0]] {
			return fmt.Errorf("volume of %s: %d up, %d down (%v), want %d, %d", row.Keys[0], up, down, values, want.upload[row.Keys[0]], want.download[row.Keys[0]])
		}
	}
	hosts, err := c.client.Hosts(ctx, client.Question{})
	if err != nil {
		return err
	}
	sum := uint64(0)
	for _, h := range hosts {
		sum += h.Requests
	}
	if sum != uint64(want.requests) {
		return fmt.Errorf("the hosts have %d requests, want %d", sum, want.requests)
	}
	return nil
}

// settled waits until every number equals the truth.
func (c *center) settled(what string, want *truth) {
	c.t.Helper()
	eventually(c.t, what, func() error { return c.differs(want) })
}

func stateDir(t *testing.T) string { return filepath.Join(t.TempDir(), "agent") }
