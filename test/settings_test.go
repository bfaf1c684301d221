package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/agent/capture"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/telemetry"
	"github.com/httpctl/httpctl/pkg/testkit"
	"github.com/httpctl/httpctl/pkg/view"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestEverySettingMatters has a row for each key of the configuration, which
// shows that another value makes another behaviour. A key without a row fails.
func TestEverySettingMatters(t *testing.T) {
	keys := keysOf(reflect.TypeFor[config.Settings](), "")
	keys = append(keys, keysOf(reflect.TypeFor[config.Log](), "log.")...)
	keys = append(keys, keysOf(reflect.TypeFor[agent.Config](), "agent.")...)
	keys = append(keys, keysOf(reflect.TypeFor[aggregator.Config](), "aggregator.")...)
	if len(keys) < 50 {
		t.Fatalf("only %d keys were found", len(keys))
	}
	for _, key := range keys {
		if shown[key] == nil {
			t.Errorf("no row shows that %s changes anything", key)
		}
	}
	for key, show := range shown {
		if !slices.Contains(keys, key) {
			t.Errorf("there is no setting %s", key)
			continue
		}
		t.Run(key, func(t *testing.T) {
			if !strings.Contains(key, ".capture.") { // those look at all rings of this process
				t.Parallel()
			}
			show(t)
		})
	}
}

// keysOf lists the keys of a section.
func keysOf(s reflect.Type, prefix string) (keys []string) {
	for i := range s.NumField() {
		f := s.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case name == "-":
		case option == "inline":
			keys = append(keys, keysOf(kind, prefix)...)
		case kind.Kind() == reflect.Struct:
			keys = append(keys, keysOf(kind, prefix+name+".")...)
		default:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

var shown map[string]func(*testing.T)

func init() { // the rows call what refers to them
	shown = map[string]func(*testing.T){
		"timeout":                   toldToAgents(func(s *config.Settings) { s.Timeout = 700 * time.Millisecond }, func(s *httpctlv1.Settings) int64 { return s.ProvisionalEveryNs }, 700*time.Millisecond),
		"dashboard_bucket_size":     toldToAgents(func(s *config.Settings) { s.DashboardBucketSize = 5 * time.Second }, func(s *httpctlv1.Settings) int64 { return s.IntervalWidthNs }, 5*time.Second),
		"average_bucket_size":       judged(func(s *config.Settings) { s.AverageBucketSize = 10 * time.Second }, func(d *view.Dashboard) any { return d.Status.Alert.WindowEnd.Sub(d.Status.Alert.WindowStart) }, 5*time.Second, 10*time.Second),
		"average_threshold":         judged(func(s *config.Settings) { s.AverageThreshold = 30 }, func(d *view.Dashboard) any { return len(d.Alerts.Alerts) }, 1, 0),
		"average_learning_duration": judged(func(s *config.Settings) { s.AverageLearningDuration = 7 * time.Second }, func(d *view.Dashboard) any { return d.Status.Alert.LearningEnd.Sub(d.Status.Alert.LearningStart) }, 5*time.Second, 7*time.Second),
		"max_retention_length":      judged(func(s *config.Settings) { s.MaxRetentionLength = 10 * time.Second }, func(d *view.Dashboard) any { return len(d.Alerts.Alerts) }, 1, 0),
		"max_top_hits":              judged(func(s *config.Settings) { s.MaxTopHits = 3 }, func(d *view.Dashboard) any { return len(topOf(d, "domain").Rows) }, 10, 3),
		"max_late":                  showMaxLate,
		"host_gone_after":           showHostGoneAfter,
		"max_str_length": reads(func() []testkit.Frame {
			return simple("GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: " + strings.Repeat("x", 100) + "\r\n\r\n")
		},
			func(s *config.Settings, _ *agent.Config) { s.MaxStrLength = 32 },
			func(r *agent.Report) any {
				return len(tableOf(r, "user_agent").Rows[0].Keys[len(tableOf(r, "user_agent").Rows[0].Keys)-1])
			}, 100, 32),
		"max_keys": reads(func() []testkit.Frame { return numberedFrames(30) },
			func(s *config.Settings, _ *agent.Config) { s.MaxKeys = 10 },
			func(r *agent.Report) any { return len(tableOf(r, "section").Rows) }, 30, 10),
		"statistics": reads(func() []testkit.Frame { return numberedFrames(1) },
			func(s *config.Settings, _ *agent.Config) { s.Statistics = []string{"domain"} },
			func(r *agent.Report) any { return len(r.Tables) }, len(config.DefaultSettings().Statistics)+8, 1),

		"log.level":  logs(func(l *config.Log) { l.Level = "warn" }, func(out string) any { return out == "" }),
		"log.format": logs(func(l *config.Log) { l.Format = "json" }, func(out string) any { return strings.HasPrefix(out, "{") }),

		"agent.aggregator":       showAgent,
		"agent.state":            showAgent,
		"agent.host_name":        showAgent,
		"agent.metrics":          showAgent,
		"agent.confine":          showConfine,
		"agent.tls.cert_file":    showTLS,
		"agent.tls.key_file":     showTLS,
		"agent.tls.ca_file":      showTLS,
		"agent.tls.server_name":  showTLS,
		"agent.backoff_max":      roomTest("agent/uplink", "TestBackoffMax", "BackoffMax"),
		"agent.max_message_size": showMaxMessageSize,
		"agent.local_networks": reads(func() []testkit.Frame { return numberedFrames(1) },
			func(_ *config.Settings, c *agent.Config) { c.LocalNetworks = []string{"192.0.2.80/32"} },
			func(r *agent.Report) any { return tableOf(r, "totals").Rows[0].Keys[1] }, "transit", "server"),

		"agent.privacy.clients": reads(func() []testkit.Frame { return numberedFrames(1) },
			func(_ *config.Settings, c *agent.Config) { c.Privacy.Clients = "drop" },
			lastKey("client_ip"), "192.0.2.1", "-"),
		"agent.privacy.domains": reads(func() []testkit.Frame { return numberedFrames(1) },
			func(_ *config.Settings, c *agent.Config) { c.Privacy.Domains = []string{"example.net"} },
			lastKey("domain"), "example.org", "(other)"),
		"agent.privacy.other_domains": reads(func() []testkit.Frame { return numberedFrames(1) },
			func(_ *config.Settings, c *agent.Config) {
				c.Privacy.Domains, c.Privacy.OtherDomains = []string{"example.net"}, "hash"
			},
			func(r *agent.Report) any { return strings.HasPrefix(fmt.Sprint(lastKey("domain")(r)), "d-") }, false, true),
		"agent.privacy.key_file":    showKeyFile,
		"agent.tail.allow":          roomTest("agent/tail", "TestTailIsRefused", "Allow"),
		"agent.tail.max_per_second": roomTest("agent/tail", "TestTailBounds", "MaxPerSecond"),
		"agent.tail.fields":         roomTest("agent/tail", "TestTailShowsFields", "Fields"),
		"agent.memory": reads(func() []testkit.Frame {
			var all []*testkit.Conversation
			for i := range 18_000 {
				all = append(all, slow(40_000+i, 0))
			}
			return testkit.Merge(all...)
		}, func(_ *config.Settings, c *agent.Config) {
			c.Memory = 96 * config.MiB
			c.Derive(func(string) bool { return false })
		}, func(r *agent.Report) any { return r.Counters[exchange.EvictedFlows] > 0 }, false, true),
		"agent.table_memory": reads(func() []testkit.Frame {
			var all []*testkit.Conversation
			for i := range 500 {
				c := newClient(40_000 + i)
				c.Open()
				c.ToServer(fmt.Sprintf("GET /%0900d HTTP/1.1\r\nHost: %0900d.example.org\r\n\r\n", i, i))
				all = append(all, c)
			}
			return testkit.Merge(all...)
		}, func(_ *config.Settings, c *agent.Config) { c.TableMemory = config.MiB },
			func(r *agent.Report) any { return r.Counters[exchange.EvictedKeys] > 0 }, false, true),

		"agent.capture.interfaces": showInterfaces,
		"agent.capture.namespaces": showNamespaces,
		"agent.capture.ports": reads(func() []testkit.Frame { return numberedFrames(3) },
			func(_ *config.Settings, c *agent.Config) { c.Capture.Ports = []uint16{8080} }, counter(exchange.Requests), 3, 0),
		"agent.capture.ring_size":    showRings,
		"agent.capture.block_size":   showBlockSize,
		"agent.capture.rings":        showRings,
		"agent.capture.poll_timeout": showPollTimeout,

		"agent.decode.fragment_timeout": reads(func() []testkit.Frame { return fragmented(3*time.Second, 1) },
			func(_ *config.Settings, c *agent.Config) { c.Decode.FragmentTimeout = time.Second }, counter(exchange.Requests), 1, 0),
		"agent.decode.fragmented_datagrams": reads(func() []testkit.Frame { return fragmented(time.Millisecond, 3) },
			func(_ *config.Settings, c *agent.Config) { c.Decode.FragmentedDatagrams = 1 }, counter(exchange.Requests), 3, 0),
		"agent.decode.fragment_memory": reads(func() []testkit.Frame { return fragmented(time.Millisecond, 5) },
			func(_ *config.Settings, c *agent.Config) { c.Decode.FragmentMemory = 128 * config.KiB },
			func(r *agent.Report) any { return r.Counters[exchange.FragmentsDropped] > 0 }, false, true),

		"agent.stream.max_flows": reads(func() []testkit.Frame { return testkit.Merge(slow(40000, 0), slow(40001, time.Millisecond)) },
			func(_ *config.Settings, c *agent.Config) { c.Stream.MaxFlows = 1 },
			func(r *agent.Report) any { return r.Counters[exchange.EvictedFlows] > 0 }, false, true),
		"agent.stream.max_buffer": reads(reordered,
			func(_ *config.Settings, c *agent.Config) {
				c.Stream.MaxBuffer, c.Stream.MaxFlowBuffer = 64*config.KiB, 64*config.KiB
			},
			func(r *agent.Report) any { return r.Counters[exchange.EvictedBytes] > 0 }, false, true),
		"agent.stream.max_flow_buffer": reads(reordered,
			func(_ *config.Settings, c *agent.Config) { c.Stream.MaxFlowBuffer = 64 * config.KiB },
			func(r *agent.Report) any { return r.Counters[exchange.EvictedBytes] > 0 }, false, true),
		"agent.stream.flow_idle_timeout": reads(func() []testkit.Frame { return slow(40000, 0).Frames },
			func(_ *config.Settings, c *agent.Config) { c.Stream.FlowIdleTimeout = time.Second }, counter(exchange.UnmatchedRequests), 0, 1),
		"agent.stream.half_open_timeout": reads(func() []testkit.Frame {
			c := newClient(40000)
			c.Step = time.Second // between the packets of the handshake
			c.Open()
			c.Step = time.Millisecond
			c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
			return c.Frames
		}, func(_ *config.Settings, c *agent.Config) { c.Stream.HalfOpenTimeout = 100 * time.Millisecond }, counter(exchange.Connections), 1, 3),
		"agent.stream.hole_timeout": reads(func() []testkit.Frame {
			c := newClient(40000)
			c.Open()
			begin := c.ClientSeq
			c.ClientSeq += 20
			c.Now = c.Now.Add(time.Millisecond)
			c.ToServer("st: example.org\r\n\r\n")
			end := c.ClientSeq
			c.Now = c.Now.Add(time.Second)
			c.ClientSeq = begin
			c.ToServer("GET /a HTTP/1.1\r\nHostX"[:20])
			c.ClientSeq = end
			c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
			return c.Frames
		}, func(_ *config.Settings, c *agent.Config) { c.Stream.HoleTimeout = 50 * time.Millisecond },
			func(r *agent.Report) any { return r.Counters[exchange.Gaps] > 0 }, false, true),

		"agent.http.max_header_bytes": reads(func() []testkit.Frame {
			return simple("GET /a HTTP/1.1\r\nHost: example.org\r\nX: " + strings.Repeat("x", 3000) + "\r\n\r\n")
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.MaxHeaderBytes = config.KiB }, counter(exchange.OversizedHeads), 0, 1),
		"agent.http.max_head_memory": reads(func() []testkit.Frame {
			var all []*testkit.Conversation
			for i := range 4 { // each head is unfinished while the others begin
				c := newClient(40000 + i)
				c.Open()
				c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\nX: " + strings.Repeat("x", 40_000))
				c.Now = c.Now.Add(time.Second)
				c.ToServer("\r\n\r\n")
				all = append(all, c)
			}
			return testkit.Merge(all...)
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.MaxHeadMemory = 64 * config.KiB },
			func(r *agent.Report) any { return r.Counters[exchange.EvictedBytes] > 0 }, false, true),
		"agent.http.max_pipelined": reads(func() []testkit.Frame {
			return simple(strings.Repeat("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n", 3))
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.MaxPipelined = 1 }, counter(exchange.PipelineOverflows), 0, 2),
		"agent.http.max_waiting": reads(func() []testkit.Frame {
			return simple(strings.Repeat("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n", 4))
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.MaxWaiting = 1 }, counter(exchange.WaitingOverflows), 0, 2),
		"agent.http.max_open_memory": reads(func() []testkit.Frame {
			return simple(strings.Repeat("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n", 100) + strings.Repeat("GET /"+strings.Repeat("b", 900)+" HTTP/1.1\r\nHost: example.org\r\n\r\n", 20))
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.MaxOpenMemory = 64 * config.KiB },
			func(r *agent.Report) any { return r.Counters[exchange.EvictedExchanges] > 0 }, false, true),
		"agent.http.sniff_bytes": reads(func() []testkit.Frame {
			return late(8, strings.Repeat("junk junk junk\r\n", 64))
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.SniffBytes = config.KiB }, counter(exchange.Responses), 1, 0),
		"agent.http.sniff_starts": reads(func() []testkit.Frame {
			return late(8, "GET nothing at all\r\n\r\n")
		}, func(_ *config.Settings, c *agent.Config) { c.HTTP.SniffStarts = 1 }, counter(exchange.Requests), 1, 0),

		"agent.spool.max_size":   roomTest("agent/spool", "TestFullSpoolDropsOldestAndDeclares", "MaxSize"),
		"agent.spool.max_memory": roomTest("agent/spool", "TestMemoryQueueIsBounded", "MaxMemory"),

		"aggregator.limits.max_handshakes":             roomTest("aggregator/access", "TestHandshakeLimits", "MaxHandshakes"),
		"aggregator.limits.handshakes_per_second":      roomTest("aggregator/access", "TestHandshakeRates", "HandshakesPerSecond"),
		"aggregator.limits.max_connections_per_source": roomTest("aggregator/access", "TestHandshakeLimits", "MaxConnectionsPerSource"),
		"aggregator.data":                              showAggregator,
		"aggregator.listen":                            showAggregator,
		"aggregator.metrics":                           showAggregator,
		"aggregator.web.listen":                        showWeb,
		"aggregator.web.hosts":                         showWeb,
		"aggregator.tls.cert_file":                     showTLS,
		"aggregator.tls.key_file":                      showTLS,
		"aggregator.tls.ca_file":                       showTLS,
		"aggregator.tls.server_name":                   showNoServerName,
		"aggregator.roles.agent":                       showRoles,
		"aggregator.roles.viewer":                      showRoles,
		"aggregator.roles.admin":                       showRoles,
		"aggregator.enroll.certificate_life":           showCertificateLife,
		"aggregator.enroll.renew_grace":                roomTest("aggregator/enroll", "TestRenew", "RenewGrace"),
		"aggregator.rollups.minutes":                   roomTest("aggregator/app", "TestRollupsKeep", "Minutes"),
		"aggregator.rollups.hours":                     roomTest("aggregator/app", "TestRollupsKeep", "Hours"),
		"aggregator.rollups.days":                      roomTest("aggregator/app", "TestRollupsKeep", "Days"),
		"aggregator.ingest.max_agents":                 roomTest("aggregator/ingest", "TestMaxAgents", "MaxAgents"),
		"aggregator.ingest.max_message_size":           showMaxMessageSize,
		"aggregator.ingest.max_pending":                roomTest("aggregator/ingest", "TestMaxPending", "MaxPending"),

		"aggregator.export.scrape":                         roomTest("test", "TestExport", "scrape"),
		"aggregator.export.max_domains":                    roomTest("aggregator/export", "TestMaxDomains", "MaxDomains"),
		"aggregator.export.max_hosts":                      roomTest("aggregator/export", "TestMaxHosts", "MaxHosts"),
		"aggregator.export.max_rows":                       roomTest("aggregator/export", "TestMaxRows", "MaxRows"),
		"aggregator.export.instance":                       roomTest("test", "TestExport", "instance"),
		"aggregator.export.remote_write.url":               roomTest("test", "TestExport", "remote_write"),
		"aggregator.export.remote_write.every":             roomTest("aggregator/export/push", "TestEvery", "Every"),
		"aggregator.export.remote_write.max_pending":       roomTest("aggregator/export/push", "TestMaxPending", "MaxPending"),
		"aggregator.export.remote_write.bearer_token_file": roomTest("aggregator/export/push", "TestHTTP", "BearerTokenFile"),
		"aggregator.export.remote_write.username":          roomTest("aggregator/export/push", "TestHTTP", "Username"),
		"aggregator.export.remote_write.password_file":     roomTest("aggregator/export/push", "TestHTTP", "PasswordFile"),
		"aggregator.export.remote_write.ca_file":           roomTest("aggregator/export/push", "TestHTTP", "CAFile"),
		"aggregator.export.remote_write.plain_text":        roomTest("aggregator/export", "TestReceivers", "PlainText"),
		"aggregator.export.otlp.url":                       roomTest("test", "TestExport", "otlp"),
		"aggregator.export.otlp.every":                     roomTest("aggregator/export/push", "TestEvery", "Every"),
		"aggregator.export.otlp.max_pending":               roomTest("aggregator/export/push", "TestMaxPending", "MaxPending"),
		"aggregator.export.otlp.bearer_token_file":         roomTest("aggregator/export/push", "TestGRPC", "BearerTokenFile"),
		"aggregator.export.otlp.username":                  roomTest("aggregator/export/push", "TestHTTP", "Username"),
		"aggregator.export.otlp.password_file":             roomTest("aggregator/export/push", "TestHTTP", "PasswordFile"),
		"aggregator.export.otlp.ca_file":                   roomTest("aggregator/export/push", "TestGRPC", "CAFile"),
		"aggregator.export.otlp.plain_text":                roomTest("aggregator/export", "TestReceivers", "PlainText"),
	}
}

// reads shows a setting by what a capture gives with its default and with
// another value.
func reads(frames func() []testkit.Frame, change func(*config.Settings, *agent.Config), measure func(*agent.Report) any, before, after any) func(*testing.T) {
	return func(t *testing.T) {
		file := testkit.WriteFile(t, frames()...)
		read := func(change func(*config.Settings, *agent.Config)) any {
			settings, cfg := config.DefaultSettings(), agent.DefaultConfig()
			if change != nil {
				change(&settings, &cfg)
				cfg.Capture.Interfaces = []string{"lo"}
				if err := cfg.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			r, err := agent.Read(t.Context(), []string{file}, agent.ReadOptions{Settings: settings, Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			return measure(r)
		}
		if got := read(nil); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("by default %v, want %v", got, before)
		}
		if got := read(change); fmt.Sprint(got) != fmt.Sprint(after) {
			t.Errorf("changed: %v, want %v", got, after)
		}
	}
}

// lastKey gives the last key of a table's first row.
func lastKey(table string) func(*agent.Report) any {
	return func(r *agent.Report) any {
		keys := tableOf(r, table).Rows[0].Keys
		return keys[len(keys)-1]
	}
}

// showKeyFile hashes with two keys, and with one of them again.
func showKeyFile(t *testing.T) {
	file := testkit.WriteFile(t, numberedFrames(1)...)
	var hashes []any
	keys := []string{write(t, "one", "0123456789abcdef"), write(t, "two", "fedcba9876543210")}
	for _, key := range append(keys, keys[0]) {
		cfg := agent.DefaultConfig()
		cfg.Privacy.Clients, cfg.Privacy.KeyFile = "hash", key
		r, err := agent.Read(t.Context(), []string{file}, agent.ReadOptions{Settings: config.DefaultSettings(), Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, lastKey("client_ip")(r))
	}
	if hashes[0] == hashes[1] || hashes[0] != hashes[2] {
		t.Errorf("hashes with the first key, the second and the first again are %q", hashes)
	}
	for _, bad := range []string{write(t, "short", "0123456789abcde"), "/not/there"} {
		cfg := agent.DefaultConfig()
		cfg.Privacy.Clients, cfg.Privacy.KeyFile = "hash", bad
		if _, err := agent.Read(t.Context(), []string{file}, agent.ReadOptions{Settings: config.DefaultSettings(), Config: cfg}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("with the key %s: %v, want an error that names it", bad, err)
		}
	}
}

func counter(c exchange.Counter) func(*agent.Report) any {
	return func(r *agent.Report) any { return r.Counters[c] }
}

func tableOf(r *agent.Report, name string) *bucket.Table {
	for _, t := range r.Tables {
		if t.Schema.Name == name {
			return t
		}
	}
	return &bucket.Table{Rows: []*bucket.Row{{Keys: []string{"", ""}}}}
}

func topOf(d *view.Dashboard, name string) (top view.Top) {
	for _, t := range d.Tops {
		if t.Name == name {
			top = t
		}
	}
	return top
}

func newClient(port int) *testkit.Conversation {
	return testkit.NewConversation(fmt.Sprintf("192.0.2.1:%d", port), serverAddress+":80")
}

func simple(request string) []testkit.Frame {
	c := newClient(40000)
	c.Open()
	c.ToServer(request)
	c.Close()
	return c.Frames
}

// late is a request that follows n packets of something else.
func late(n int, packet string) []testkit.Frame {
	c := newClient(40000)
	c.Open()
	for range n {
		c.ToServer(packet)
	}
	c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
	c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	c.Close()
	return c.Frames
}

func numberedFrames(n int) []testkit.Frame {
	c := newClient(40000)
	c.Open()
	for i := range n {
		c.ToServer(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: example.org\r\n\r\n", i))
		c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	}
	c.Close()
	return c.Frames
}

// slow is a connection whose response comes 5 s after the request.
func slow(port int, after time.Duration) *testkit.Conversation {
	c := newClient(port)
	c.Now = c.Now.Add(after)
	c.Open()
	c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
	c.Now = c.Now.Add(5 * time.Second)
	c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	c.Close()
	return c
}

// reordered is a response of 200 KB whose first segment comes last.
func reordered() []testkit.Frame {
	c := newClient(40000)
	c.Step = 100 * time.Microsecond
	c.Open()
	c.ToServer("GET /a HTTP/1.1\r\nHost: example.org\r\n\r\n")
	first := "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
	begin := c.ServerSeq
	c.ServerSeq += uint32(len(first))
	c.ToClient(strings.Repeat("x", 200_000))
	c.ServerSeq = begin
	c.ToClient(first)
	return c.Frames
}

// fragmented are n requests, each on a connection of its own and in two IP
// fragments; the second ones come after all of the first, by that time.
func fragmented(after time.Duration, n int) []testkit.Frame {
	var frames []testkit.Frame
	for _, part := range []int{0, 1} {
		for i := range n {
			src, dst := netip.MustParseAddrPort(fmt.Sprintf("192.0.2.1:%d", 40000+i)), netip.MustParseAddrPort(serverAddress+":80")
			request := "GET /a HTTP/1.1\r\nHost: example.org\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n"
			segment := testkit.TCP{Src: src, Dst: dst, Seq: 1000, Ack: 1, Flags: testkit.ACK | testkit.PSH, Payload: []byte(request)}.Segment()
			const cut = 32_000
			at := testkit.Start.Add(time.Duration(part) * after).UnixNano()
			data := segment[:cut]
			if part == 1 {
				data = segment[cut:]
			}
			ip := testkit.IPv4Fragment(src.Addr(), dst.Addr(), testkit.ProtoTCP, uint16(i+1), part*cut, part == 0, data)
			frames = append(frames, testkit.Frame{Time: at + int64(i), Data: testkit.Ethernet(testkit.EtherIPv4, ip)})
		}
	}
	return frames
}

func logs(change func(*config.Log), measure func(string) any) func(*testing.T) {
	return func(t *testing.T) {
		write := func(l config.Log) any {
			var out bytes.Buffer
			telemetry.NewLogger(l, &out).Info("said")
			return measure(out.String())
		}
		changed := config.DefaultLog()
		change(&changed)
		if write(config.DefaultLog()) != false || write(changed) != true {
			t.Error("no difference")
		}
	}
}

// feeder is an agent's end of the stream, which sends buckets of any time.
type feeder struct {
	t        *testing.T
	stream   grpc.BidiStreamingClient[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]
	settings *httpctlv1.Settings
	host     bucket.ID
	sent     uint64
	tables   []string
}

func feed(t *testing.T, c *center, host byte) *feeder {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+config.SocketPath(c.cfg.Data), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := httpctlv1.NewIngestServiceClient(conn).Deliver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := &feeder{t: t, stream: stream, host: bucket.ID{host}, tables: stat.Builtin}
	err = stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Hello{Hello: &httpctlv1.Hello{
		HostId: f.host[:], Incarnation: f.host[:], HostName: fmt.Sprintf("web-%d", host)}}})
	if err != nil {
		t.Fatal(err)
	}
	f.settings = f.receive().GetWelcome().GetSettings()
	if f.settings == nil {
		t.Fatal("no welcome")
	}
	return f
}

func (f *feeder) receive() *httpctlv1.DeliverResponse {
	f.t.Helper()
	m, err := f.stream.Recv()
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// make returns the bucket of the interval at start with n requests, to as many domains up to 12.
func (f *feeder) make(start int64, n int) *bucket.Bucket {
	f.t.Helper()
	b := &bucket.Bucket{}
	b.Name = bucket.Name{Host: f.host, Start: start, Incarnation: f.host}
	b.HostName, b.Width, b.Ordinal = fmt.Sprintf("web-%d", f.host[0]), time.Duration(f.settings.IntervalWidthNs), f.sent
	b.Final, b.ClosedThrough, b.ObservedFrom = true, b.End(), start-int64(time.Hour)
	b.Counters[exchange.Requests] = uint64(n)
	for _, name := range f.tables {
		m, err := stat.New(name)
		if err != nil {
			f.t.Fatal(err)
		}
		var tables []*bucket.Table
		for _, s := range m.Tables() {
			tables = append(tables, bucket.NewTable(s, 1000))
		}
		for i := range n {
			domain := fmt.Sprintf("site%d.example.org", i%12)
			m.Observe(&exchange.Observation{Event: exchange.RequestSeen, Time: start + 1, Exchange: &exchange.Exchange{
				Role: exchange.Server, HasRequest: true, Method: "GET", Domain: domain, Section: domain + "/"}}, tables)
		}
		b.Tables = append(b.Tables, tables...)
	}
	return b
}

// send delivers a final bucket and returns its fate, or a provisional one.
func (f *feeder) send(b *bucket.Bucket) httpctlv1.BucketStatus {
	f.t.Helper()
	data, err := bucket.Encode(nil, b)
	if err != nil {
		f.t.Fatal(err)
	}
	f.sent++
	err = f.stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: f.sent, Data: data}}})
	if err != nil {
		f.t.Fatal(err)
	}
	for b.Final {
		if ack := f.receive().GetAck(); ack != nil {
			return ack.Results[0].Status
		}
	}
	return 0
}

// ago is the start of the interval of that long ago.
func (f *feeder) ago(d time.Duration) int64 {
	at := time.Now().Add(-d).UnixNano()
	return at - at%f.settings.IntervalWidthNs
}

func toldToAgents(change func(*config.Settings), measure func(*httpctlv1.Settings) int64, want time.Duration) func(*testing.T) {
	return func(t *testing.T) {
		if got := measure(feed(t, newCenter(t, nil), 1).settings); got == int64(want) {
			t.Errorf("without the change %v, too", want)
		}
		c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) {
			change(s)
			s.AverageBucketSize = 10 * time.Second
			s.HostGoneAfter = time.Minute
		})
		if got := measure(feed(t, c, 1).settings); got != int64(want) {
			t.Errorf("agents are told %v, want %v", time.Duration(got), want)
		}
		if s, err := c.client.Status(t.Context()); err != nil || s.Interval != want && s.Refresh != want {
			t.Errorf("readers are told %+v, %v, want %v", s, err, want)
		}
	}
}

// judged shows a setting by the dashboard of a minute and a half of made-up
// load: 12 a second, for 10 s a quarter more, then 12 again.
func judged(change func(*config.Settings), measure func(*view.Dashboard) any, before, after any) func(*testing.T) {
	return func(t *testing.T) {
		run := func(change func(*config.Settings)) any {
			var end int64
			c := newCenter(t, func(s *config.Settings, cfg *aggregator.Config) {
				s.AverageLearningDuration = 5 * time.Second
				s.MaxLate = 24 * time.Hour
				if change != nil {
					change(s)
				}
				// All of it is there when the aggregator starts: what comes later than two intervals is judged without.
				f := &feeder{t: t, settings: &httpctlv1.Settings{IntervalWidthNs: int64(s.DashboardBucketSize)}, host: bucket.ID{1}, tables: stat.Builtin}
				end = f.ago(0)
				var batch []store.Item
				for i, at := 0, f.ago(90*time.Second); at < end; i, at = i+1, at+f.settings.IntervalWidthNs {
					n := 12
					if i >= 40 && i < 50 {
						n = 15
					}
					batch = append(batch, storetest.Item(t, f.make(at, n)))
					f.sent++
				}
				prefill(t, *cfg, batch)
			})
			var d *view.Dashboard
			eventually(t, "all windows are judged", func() (err error) {
				if d, err = c.client.Dashboard(t.Context(), client.Question{}); err == nil && (d.Status.Alert.State != view.Normal || d.Status.Alert.WindowEnd.UnixNano() <= end) {
					err = fmt.Errorf("%+v", d.Status.Alert)
				}
				return err
			})
			return measure(d)
		}
		if got := run(nil); got != before {
			t.Errorf("by default %v, want %v", got, before)
		}
		if got := run(change); got != after {
			t.Errorf("changed: %v, want %v", got, after)
		}
	}
}

func showMaxLate(t *testing.T) {
	run := func(late time.Duration, want httpctlv1.BucketStatus) {
		t.Helper()
		c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) { s.MaxRetentionLength, s.MaxLate = 5*time.Second, late })
		f := feed(t, c, 1)
		f.send(f.make(f.ago(time.Second), 1))
		deadline := time.Now().Add(patience) // for several purges, if late is short
		minutes := 1
		status := f.send(f.make(f.ago(time.Minute), 1))
		for ; status != want && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			minutes++
			status = f.send(f.make(f.ago(time.Duration(minutes)*time.Minute), 1))
		}
		if status != want {
			t.Errorf("with max_late %v a bucket of minutes ago is %v, want %v", late, status, want)
		}
	}
	run(0, httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED)
	run(24*time.Hour, httpctlv1.BucketStatus_BUCKET_STATUS_STORED)
}

func showHostGoneAfter(t *testing.T) {
	health := map[time.Duration]view.Health{3 * time.Second: view.Gone, time.Minute: view.Late}
	for after, want := range health {
		c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) { s.HostGoneAfter = after })
		f := feed(t, c, 1)
		f.send(f.make(f.ago(time.Second), 1))
		eventually(t, "silence is noticed", func() error {
			hosts, err := c.client.Hosts(t.Context(), client.Question{})
			if err == nil && (len(hosts) != 1 || hosts[0].Health != want) {
				err = fmt.Errorf("with host_gone_after %v: %+v, want %s", after, hosts, want)
			}
			return err
		})
	}
}

func fetch(t *testing.T, address string) string {
	t.Helper()
	r, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func showAgent(t *testing.T) {
	one, two := newCenter(t, nil), newCenter(t, nil)
	state, metrics := stateDir(t), freePort(t)
	cfg := agentConfig(two.address(), state, "called-so")
	cfg.Metrics = metrics
	startWatcher(t, two.settings, cfg, testkit.WriteFile(t, numberedFrames(3)...))
	eventually(t, "the agent reports where and as what it was told to", func() error {
		hosts, err := two.client.Hosts(t.Context(), client.Question{})
		if err == nil && (len(hosts) != 1 || hosts[0].Name != "called-so" || hosts[0].Requests != 3) {
			err = fmt.Errorf("%+v", hosts)
		}
		return err
	})
	if hosts, err := one.client.Hosts(t.Context(), client.Question{}); err != nil || len(hosts) != 0 {
		t.Errorf("the other aggregator has hosts %+v, %v", hosts, err)
	}
	for _, file := range []string{"host-id", "spool.db"} {
		if _, err := os.Stat(filepath.Join(state, file)); err != nil {
			t.Error(err)
		}
	}
	showsMetric(t, metrics, "httpctl_agent_requests_total 3")
}

func showAggregator(t *testing.T) {
	listen, metrics := freePort(t), freePort(t)
	c := newCenter(t, func(_ *config.Settings, c *aggregator.Config) { c.Listen, c.Metrics = []string{listen}, metrics })
	overTCP, err := client.New(client.Options{Address: listen})
	if err != nil {
		t.Fatal(err)
	}
	defer overTCP.Close()
	if _, err := overTCP.Status(t.Context()); err != nil {
		t.Errorf("no answer at the address of listen: %v", err)
	}
	for _, file := range []string{"httpctl.db", "httpctl.sock"} {
		if _, err := os.Stat(filepath.Join(c.cfg.Data, file)); err != nil {
			t.Error(err)
		}
	}
	if page := fetch(t, metrics); !strings.Contains(page, "httpctl_store_size_bytes ") {
		t.Error("the page for Prometheus does not tell the store's size")
	}
}

// showTLS delivers over mutual TLS, and shows that each of the files, and the
// name, is looked at: with another one nothing is delivered.
func showTLS(t *testing.T) {
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web-1": {}})
	other := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web-1": {}})
	file := testkit.WriteFile(t, numberedFrames(3)...)
	// What is wrong on either side, and whether it is told at the start.
	key := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
	for _, wrong := range []bool{false, true} {
		listen := freePort(t)
		settings, center := quick(), aggregator.DefaultConfig()
		center.Data, center.Listen = t.TempDir(), []string{listen}
		center.TLS.CertFile, center.TLS.KeyFile, center.TLS.CAFile = certs+"/center.pem", certs+"/center.key", certs+"/ca.pem"
		center.Roles.Agent = []string{"web-1"}
		cfg := agentConfig(listen, stateDir(t), "web-1")
		cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.CAFile = certs+"/web-1.pem", certs+"/web-1.key", certs+"/ca.pem"
		if wrong {
			switch key {
			case "agent.tls.cert_file":
				cfg.TLS.CertFile, cfg.TLS.KeyFile = other+"/web-1.pem", other+"/web-1.key" // of an authority that is not trusted
			case "agent.tls.key_file":
				cfg.TLS.KeyFile = other + "/web-1.key"
			case "agent.tls.ca_file":
				cfg.TLS.CAFile = other + "/ca.pem"
			case "agent.tls.server_name":
				cfg.TLS.ServerName = "somebody.example.org"
			case "aggregator.tls.cert_file":
				center.TLS.CertFile, center.TLS.KeyFile = other+"/center.pem", other+"/center.key"
			case "aggregator.tls.key_file":
				center.TLS.KeyFile = other + "/center.key"
			case "aggregator.tls.ca_file":
				center.TLS.CAFile = other + "/ca.pem"
			}
		}
		app, err := aggregator.Start(t.Context(), settings, center, slog.New(slog.DiscardHandler))
		if err != nil {
			if !wrong || key != "aggregator.tls.key_file" {
				t.Fatal(err)
			}
			continue
		}
		reader, err := client.New(client.Options{Address: "unix:" + config.SocketPath(center.Data)})
		if err != nil {
			t.Fatal(err)
		}
		var said output
		a, err := agent.Start(t.Context(), settings, cfg, file, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			if !wrong || key != "agent.tls.key_file" {
				t.Fatal(err)
			}
		} else {
			eventually(t, fmt.Sprintf("with %s wrong=%v the agent has tried", key, wrong), func() error {
				hosts, err := reader.Hosts(t.Context(), client.Question{})
				if wrong && !strings.Contains(said.String(), "the aggregator is away") || !wrong && len(hosts) == 0 {
					return fmt.Errorf("hosts %+v, %v; the agent says\n%s", hosts, err, said.String())
				}
				return nil
			})
			_ = a.Stop(t.Context())
		}
		hosts, err := reader.Hosts(t.Context(), client.Question{})
		if err != nil || (len(hosts) == 1) == wrong {
			t.Errorf("with %s wrong=%v: hosts %+v, %v", key, wrong, hosts, err)
		}
		reader.Close()
		if err := app.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// showNoServerName: the aggregator has no use for it, and says so.
func showNoServerName(t *testing.T) {
	c := aggregator.DefaultConfig()
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": {}})
	c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile = certs+"/center.pem", certs+"/center.key", certs+"/ca.pem"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.TLS.ServerName = "center.example.org"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "tls.server_name") {
		t.Errorf("Validate() = %v, want server_name refused", err)
	}
}

// showMaxMessageSize: a bucket above the bound of either side is given up and
// declared, and what follows is delivered.
func showMaxMessageSize(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	c := newClient(40000)
	c.Step = 10 * time.Microsecond
	c.Open()
	for range 3000 {
		c.ToServer(fmt.Sprintf("GET /%x HTTP/1.1\r\nHost: example.org\r\nUser-Agent: %x%x%x%x\r\n\r\n", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()))
		c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	}
	file := testkit.WriteFile(t, c.Frames...)
	for _, wrong := range []bool{false, true} {
		ofAgent := strings.Contains(t.Name(), "agent.max")
		center := newCenter(t, func(s *config.Settings, c *aggregator.Config) {
			s.MaxKeys = 10_000
			if wrong && !ofAgent {
				c.Ingest.MaxMessageSize = 64 * config.KiB
			}
		})
		cfg := agentConfig(center.address(), stateDir(t), "web-1")
		if wrong && ofAgent {
			cfg.MaxMessageSize = 64 * config.KiB
		}
		startWatcher(t, center.settings, cfg, file)
		want := map[bool]string{false: "3000 requests, nothing dropped", true: "fewer requests, something dropped"}[wrong]
		eventually(t, want, func() error {
			hosts, err := center.client.Hosts(t.Context(), client.Question{})
			if err != nil || len(hosts) != 1 {
				return fmt.Errorf("%+v, %v", hosts, err)
			}
			dropped := false
			for _, n := range hosts[0].Counters {
				dropped = dropped || n.Name == "spool_dropped_buckets"
			}
			if dropped != wrong || !wrong && hosts[0].Requests != 3000 || wrong && hosts[0].Requests >= 3000 {
				return fmt.Errorf("%+v", hosts[0])
			}
			return nil
		})
	}
}

// showsMetric waits until a page for Prometheus has a line.
func showsMetric(t *testing.T, address, line string) {
	t.Helper()
	eventually(t, line, func() error {
		name, _, _ := strings.Cut(line, " ")
		if text := fetch(t, address); !strings.Contains(text, "\n"+line+"\n") {
			return errors.New(regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` .*$`).FindString(text))
		}
		return nil
	})
}

// live opens rings on the loopback interface.
func live(t *testing.T, change func(*capture.Config)) []*capture.Live {
	t.Helper()
	cfg := capture.DefaultConfig()
	cfg.Interfaces, cfg.RingSize, cfg.BlockSize, cfg.Ports = []string{"lo"}, 2*config.MiB, config.MiB, []uint16{1}
	change(&cfg)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	rings, err := capture.OpenLive(cfg)
	if errIsPermission(err) {
		t.Skipf("needs CAP_NET_RAW: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, r := range rings {
			r.Close()
			for err := error(nil); err != io.EOF; { // gives the ring back
				_, err = r.Next(make([]capture.Packet, 1))
			}
		}
	})
	return rings
}

func errIsPermission(err error) bool {
	return err != nil && (os.IsPermission(err) || strings.Contains(err.Error(), fs.ErrPermission.Error()) || strings.Contains(err.Error(), "operation not permitted"))
}

// mapped is the memory of packet rings in this process.
func mapped(t *testing.T) (bytes uint64) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !strings.Contains(lines.Text(), "socket:[") {
			continue
		}
		var from, to uint64
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); err != nil {
			t.Fatal(err)
		}
		bytes += to - from
	}
	return bytes
}

func showRings(t *testing.T) {
	before := mapped(t)
	live(t, func(c *capture.Config) { c.RingSize, c.Rings = 3*config.MiB, 2 })
	if got := mapped(t) - before; got != 6<<20 {
		t.Errorf("two rings of 3 MiB map %d bytes", got)
	}
}

// showBlockSize has a reader that stalls while packets come one by one, each to a block of its own.
func showBlockSize(t *testing.T) {
	for block, dropped := range map[config.Size]bool{128 * config.KiB: false, config.MiB: true} {
		ring := live(t, func(c *capture.Config) { c.BlockSize, c.PollTimeout = block, 10*time.Millisecond })[0]
		for range 5 {
			if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
				c.Close()
			}
			time.Sleep(40 * time.Millisecond) // until the kernel has handed the block over
		}
		if got := ring.Stats().Drops > 0; got != dropped {
			t.Errorf("2MiB in blocks of %v: packets were dropped: %v, want %v", block, got, dropped)
		}
	}
}

func showPollTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{20 * time.Millisecond, 300 * time.Millisecond} {
		most := timeout + 150*time.Millisecond
		least := time.Hour // of three at least: a busy machine is late
		for n := 0; n < 3 || least > most && n < 100; n++ {
			ring := live(t, func(c *capture.Config) { c.PollTimeout = timeout })[0]
			begin := time.Now()
			if _, err := ring.Next(make([]capture.Packet, 1)); err != capture.ErrIdle {
				t.Fatalf("Next() = %v, want ErrIdle", err)
			}
			least = min(least, time.Since(begin))
		}
		if least < timeout-5*time.Millisecond || least > most {
			t.Errorf("with poll_timeout %v idle after %v", timeout, least)
		}
	}
}

func showNamespaces(t *testing.T) {
	cfg := capture.DefaultConfig()
	cfg.Namespaces = []string{"no-such-namespace"}
	if _, err := capture.OpenLive(cfg); err == nil || !strings.Contains(err.Error(), "no-such-namespace: no such network namespace") {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

func showInterfaces(t *testing.T) {
	if got := live(t, func(c *capture.Config) { c.Interfaces = []string{"lo"} })[0].Missing(); len(got) != 0 {
		t.Errorf("lo is missing: %v", got)
	}
	cfg := capture.DefaultConfig()
	cfg.Interfaces = []string{"nosuch0"}
	if _, err := capture.OpenLive(cfg); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

// roomTest is a row for a setting that a test of its room shows: the test is
// there, and sets the field.
func roomTest(pkg, test, field string) func(*testing.T) {
	return func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s: %v", pkg, err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			parsed, err := parser.ParseFile(set, file, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range parsed.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == test {
					body := source[set.Position(f.Pos()).Offset:set.Position(f.End()).Offset]
					if !regexp.MustCompile(`\b` + field + `\b`).Match(body) {
						t.Errorf("%s of %s does not set %s", test, pkg, field)
					}
					return
				}
			}
		}
		t.Errorf("there is no %s in %s", test, pkg)
	}
}
