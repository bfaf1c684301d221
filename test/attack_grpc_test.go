package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// resident is a process's memory in MiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// TestIdleConnections holds 2,000 connections that say nothing, or half a greeting, against a whole
// aggregator: an agent is served meanwhile, memory stays bounded, and SIGTERM ends the program at once.
func TestIdleConnections(t *testing.T) {
	const connections = 2000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < connections+200 {
		t.Skipf("needs %d open files (ulimit -n), has %d", connections+200, limit.Cur)
	}
	address, data := freePort(t), t.TempDir()
	b := launch(t, "httpctl-aggregator", "--config", write(t, "a.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 5s\naggregator: {data: "+data+", listen: [\""+address+"\"]}\n"))
	b.says(t, "address="+address)
	before := resident(t, b.cmd.Process.Pid)
	for i := range connections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		if i%2 == 0 {
			if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	file, want := traffic(t, 1, time.Second, 100)
	cfg := agentConfig(address, stateDir(t), "web-1")
	settings := quick()
	w := startWatcher(t, settings, cfg, file)
	c, err := client.New(client.Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	watched := &center{t: t, client: c}
	watched.settled("the agent is served", want)
	after := resident(t, b.cmd.Process.Pid)
	t.Logf("%d MiB before, %d MiB with %d idle connections", before, after, connections)
	if after-before > 200 { // 32 KiB of read buffer and 8 KiB of stack each, and what the collector leaves
		t.Errorf("%d MiB more for %d idle connections", after-before, connections)
	}
	w.stop()
	begin := time.Now()
	if code := b.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("the aggregator ended with %d:\n%s", code, b.out.String())
	}
	took := time.Since(begin)
	t.Logf("SIGTERM took %s", took.Round(time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("SIGTERM took %s with idle connections", took)
	}
	if n := strings.Count(b.out.String(), "\n"); n > 10 {
		t.Errorf("the aggregator says %d lines about idle connections:\n%s", n, b.out.String())
	}
}

// TestHostileNames: what one agent calls itself, its domains and its browsers reaches JSON as it is and no terminal, and
// breaks no answer.
func TestHostileNames(t *testing.T) {
	c := newCenter(t, nil)
	const name = "web\x1b]0;owned\a\u202e\u200b<b>\"',;"
	f := feed(t, c, 1)
	b := f.make(time.Now().Add(-2*time.Second).Truncate(time.Second).UnixNano(), 3)
	b.HostName = name
	b.Tables = nil
	for _, table := range f.tables {
		m, err := stat.New(table)
		if err != nil {
			t.Fatal(err)
		}
		var tables []*bucket.Table
		for _, s := range m.Tables() {
			tables = append(tables, bucket.NewTable(s, 1000))
		}
		for range 3 {
			m.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: b.Start + 1, Exchange: &exchange.Exchange{Role: exchange.Server, HasRequest: true,
				Method: "GET", Domain: "a\xff\x1b[2J.example.org", Section: "a\xff\x1b[2J.example.org/", UserAgent: "x\xfe\u202ey"}}, tables)
		}
		b.Tables = append(b.Tables, tables...)
	}
	if got := f.send(b); got != httpctlv1.BucketStatus_BUCKET_STATUS_STORED {
		t.Fatalf("the bucket is %v", got)
	}
	address := "--aggregator=" + c.address()
	for _, args := range [][]string{{"hosts"}, {"hosts", "-o", "csv"}, {"hosts", "-o", "wide"}, {"hosts", "-o", "json"}, {"top", "domain"}, {"top", "user_agent", "-o", "csv"},
		{"top", "section", "-o", "json"}, {"dashboard", "--once"}, {"dashboard", "--once", "-o", "json"}} {
		got := try(t, nil, append(append([]string{"httpctl"}, args...), address)...)
		judgeMessage(t, got, 0, nil)
		if strings.ContainsAny(got.stdout, "\a\u202e\u200b") || !utf8.ValidString(got.stdout) {
			t.Errorf("%v writes what a terminal acts on: %q", args, got.stdout)
		}
		if args[0] == "hosts" && !strings.Contains(got.stdout, "owned") {
			t.Errorf("%v does not show the host: %q", args, got.stdout)
		}
	}
	got := try(t, nil, "httpctl", "hosts", "-o", "json", address)
	var answer any
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || !holds(answer, name) {
		t.Errorf("JSON does not hold the name as it is: %v\n%s", err, got.stdout)
	}
}

// holds reports whether a value of JSON has that string somewhere.
func holds(v any, want string) bool {
	switch v := v.(type) {
	case string:
		return v == want
	case []any:
		for _, e := range v {
			if holds(e, want) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if holds(e, want) {
				return true
			}
		}
	}
	return false
}

// TestAgentsWithoutTrust: agents with no, an expired or a foreign certificate deliver nothing, and say why.
func TestAgentsWithoutTrust(t *testing.T) {
	names := map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web": {}}
	ours, theirs := testkit.Certificates(t, names), testkit.Certificates(t, names)
	old := testkit.ExpiredCertificates(t, names)
	ca, err := os.ReadFile(ours + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	oldCA, err := os.ReadFile(old + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	both := write(t, "both.pem", string(ca)+string(oldCA))
	tls := func(dir, name, ca string) string {
		return fmt.Sprintf("tls: {cert_file: %[1]s/%[2]s.pem, key_file: %[1]s/%[2]s.key, ca_file: %[3]s}", dir, name, ca)
	}
	address := freePort(t)
	b := launch(t, "httpctl-aggregator", "--config", write(t, "a.yaml", "aggregator:\n  data: "+t.TempDir()+"\n  listen: ["+address+"]\n  "+tls(ours, "center", both)+"\n  roles: {viewer: [web], agent: [web]}\n"))
	b.says(t, "address="+address)
	if os.Geteuid() != 0 {
		t.Skip("needs root, to capture (CAP_NET_RAW)")
	}
	for _, test := range []struct{ name, tls, want string }{
		// Whether TLS's own word for it is read depends on who is quicker.
		{"expired", tls(old, "web", both), "certificate"},
		{"foreign", tls(theirs, "web", both), "certificate"},
		{"none", "backoff_max: 1s", "one end may speak TLS and the other not"},
	} {
		a := launch(t, "httpctl-agent", "--config", write(t, "b.yaml", "agent:\n  state: "+t.TempDir()+"\n  aggregator: "+address+"\n  host_name: "+test.name+"\n  capture: {interfaces: [lo]}\n  "+test.tls+"\n"))
		a.says(t, "the aggregator is away")
		line := ""
		for _, l := range strings.Split(a.out.String(), "\n") {
			if strings.Contains(l, "the aggregator is away") {
				line = l
			}
		}
		if !strings.Contains(line, test.want) {
			t.Errorf("%s: the agent does not speak of %q: %s", test.name, test.want, line)
		}
		t.Logf("%s: %s", test.name, line)
		a.stop(t, syscall.SIGKILL)
	}
	c, err := client.New(client.Options{Address: address, TLS: security.TLS{CertFile: ours + "/web.pem", KeyFile: ours + "/web.key", CAFile: both}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if hosts, err := c.Hosts(ctx, client.Question{}); err != nil || len(hosts) != 0 {
		t.Errorf("hosts %v, %v, want none", hosts, err)
	}
}

// older is an aggregator that is older than its agents: it refuses the first final bucket, as of a format that it
// does not read, and takes what follows.
type older struct {
	httpctlv1.UnimplementedIngestServiceServer
	mu       sync.Mutex
	refused  *bucket.Header
	declared []bucket.Span
}

func (o *older) Deliver(g grpc.BidiStreamingServer[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]) error {
	for {
		m, err := g.Recv()
		if err != nil {
			return err
		}
		answer := &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Welcome{Welcome: &httpctlv1.Welcome{
			Settings: &httpctlv1.Settings{IntervalWidthNs: int64(time.Second)}, Version: "v0.0.1"}}}
		if b := m.GetBucket(); b != nil {
			h, err := bucket.DecodeHeader(b.Data)
			if err != nil {
				return err
			}
			r := &httpctlv1.BucketResult{Sequence: b.Sequence, Status: httpctlv1.BucketStatus_BUCKET_STATUS_STORED}
			o.mu.Lock()
			if o.refused == nil {
				o.refused = h
				r.Status, r.Reason = httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED, bucket.ErrVersion.Error()
			}
			o.declared = append(o.declared, h.Unobserved...)
			o.mu.Unlock()
			answer.Message = &httpctlv1.DeliverResponse_Ack{Ack: &httpctlv1.Ack{Results: []*httpctlv1.BucketResult{r}}}
		}
		if err := g.Send(answer); err != nil {
			return err
		}
	}
}

// sluggish is an aggregator that takes a second for each bucket.
type sluggish struct {
	httpctlv1.UnimplementedIngestServiceServer
	taken atomic.Int64
}

func (s *sluggish) Deliver(g grpc.BidiStreamingServer[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]) error {
	for {
		m, err := g.Recv()
		if err != nil {
			return err
		}
		answer := &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Welcome{Welcome: &httpctlv1.Welcome{
			Settings: &httpctlv1.Settings{IntervalWidthNs: int64(time.Second)}, Version: "v0.0.1"}}}
		if b := m.GetBucket(); b != nil {
			time.Sleep(time.Second)
			s.taken.Add(1)
			answer.Message = &httpctlv1.DeliverResponse_Ack{Ack: &httpctlv1.Ack{Results: []*httpctlv1.BucketResult{{Sequence: b.Sequence, Status: httpctlv1.BucketStatus_BUCKET_STATUS_STORED}}}}
		}
		if err := g.Send(answer); err != nil {
			return err
		}
	}
}

// TestStopDelivers: an agent that stops delivers what waits as long as the aggregator takes it, though that is slow.
func TestStopDelivers(t *testing.T) {
	t.Parallel()
	state := stateDir(t)
	settings := quick()
	// Three intervals wait, of a run without an aggregator.
	file, _ := traffic(t, 31, 3*time.Second, 20)
	cfg := agentConfig("unix:"+filepath.Join(t.TempDir(), "nobody.sock"), state, "web-1")
	cfg.Metrics = freePort(t)
	w := startWatcher(t, settings, cfg, file)
	showsMetric(t, cfg.Metrics, "httpctl_agent_outcomes_total 60")
	w.stop()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &sluggish{}, grpc.NewServer()
	httpctlv1.RegisterIngestServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); wg.Wait() })
	var said output
	cfg.Aggregator = l.Addr().String()
	app, err := agent.Start(t.Context(), settings, cfg, testkit.WriteFile(t), slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.taken.Load(); n < 3 || strings.Contains(said.String(), "stay in the spool") {
		t.Errorf("%d buckets were taken, want at least the three that waited; the agent says\n%s", n, said.String())
	}
}

// TestNewerFormatIsDeclared: an agent whose bucket is refused as of a newer format declares that interval.
func TestNewerFormatIsDeclared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, server := &older{}, grpc.NewServer()
	httpctlv1.RegisterIngestServiceServer(server, o)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); wg.Wait() })
	cfg := agentConfig(l.Addr().String(), stateDir(t), "web-1")
	for i := range uint64(2) { // the second incarnation tells what became of the first
		file, _ := traffic(t, i, 2*time.Second, 20)
		w := startWatcher(t, quick(), cfg, file)
		eventually(t, "the agent delivers", func() error {
			o.mu.Lock()
			defer o.mu.Unlock()
			switch {
			case o.refused == nil:
				return errors.New("no bucket yet")
			case i == 0:
				return nil
			}
			for _, s := range o.declared {
				if s.From <= o.refused.Start && s.To >= o.refused.End() {
					return nil
				}
			}
			return fmt.Errorf("[%d, %d) was refused, and declared is only %v", o.refused.Start, o.refused.End(), o.declared)
		})
		w.stop()
	}
}
