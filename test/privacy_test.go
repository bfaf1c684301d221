package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	agent "github.com/httpctl/httpctl/agent/app"
	"github.com/httpctl/httpctl/agent/privacy"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
	"github.com/httpctl/httpctl/pkg/view"
)

// relay passes connections on, and keeps all that goes to the aggregator.
type relay struct {
	mu   sync.Mutex
	sent []byte
}

func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, p...)
	return len(p), nil
}

// startRelay returns its address.
func (r *relay) start(t *testing.T, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(io.MultiWriter(out, r), in)
				out.Close()
			}()
			go func() {
				_, _ = io.Copy(in, out)
				in.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// bucketsIn finds the encoded buckets in any bytes: of a file, of a stream.
func bucketsIn(data []byte) (found []*bucket.Bucket) {
	for {
		i := bytes.Index(data, []byte("HCTB"))
		if i < 0 {
			return found
		}
		data = data[i:]
		sum := crc32.Checksum(data[:min(len(data), 15)], crcTable)
		for n := 20; n <= min(len(data), 16<<10); n++ { // its checksum says where it ends
			if sum = crc32.Update(sum, crcTable, data[n-5:n-4]); binary.LittleEndian.Uint32(data[n-4:]) != sum {
				continue
			}
			if b, err := bucket.Decode(data[:n]); err == nil {
				found = append(found, b)
				break
			}
		}
		data = data[4:]
	}
}

// textOf is all that bytes tell: themselves, and the buckets in them.
func textOf(data []byte) string {
	var b strings.Builder
	b.Write(data)
	for _, one := range bucketsIn(data) {
		for _, t := range one.Tables {
			for _, r := range t.Rows {
				fmt.Fprintln(&b, t.Schema.Name, r.Keys)
			}
		}
	}
	return b.String()
}

// asked are requests of two clients for two domains, within some seconds.
func asked(first int, step time.Duration) []testkit.Frame {
	var all []*testkit.Conversation
	for i, from := range []string{"203.0.113.77", "203.0.113.78"} {
		c := testkit.NewConversation(fmt.Sprintf("%s:%d", from, first+i), serverAddress+":80")
		c.Step = step
		c.Open()
		for k := range 20 {
			host := []string{"kept.example.org", "secret.example.net"}[k%2]
			c.ToServer("GET /hidden-" + fmt.Sprint(k%2) + "/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		c.Close()
		all = append(all, c)
	}
	return testkit.Merge(all...)
}

// TestPrivacy looks for clients and names in all that leaves an agent: its state directory, the stream (provisional
// buckets and live exchanges too), its log and metrics, the aggregator's database, and what `httpctl read` gives.
func TestPrivacy(t *testing.T) {
	t.Parallel()
	const address, name, section = "203.0.113.7", "secret.example.net", "hidden-1"
	for _, c := range []struct {
		name  string
		cfg   privacy.Config
		found string // of the three, what is seen
		rows  string // of the lists client_ip, domain and section
	}{
		{"kept", privacy.DefaultConfig(), address + " " + name + " " + section,
			"203.0.113.77=20 203.0.113.78=20; kept.example.org=20 secret.example.net=20; kept.example.org/hidden-0=20 secret.example.net/hidden-1=20"},
		{"dropped and folded", privacy.Config{Clients: privacy.Drop, Domains: []string{"*.example.org"}, OtherDomains: privacy.Fold}, "",
			"-=40; (other)=20 kept.example.org=20; (other)=20 kept.example.org/hidden-0=20"},
		{"hashed", privacy.Config{Clients: privacy.Hash, Domains: []string{"kept.example.org"}, OtherDomains: privacy.Hash}, "",
			"c-=20 c-=20; d-=20 kept.example.org=20; d-=20 kept.example.org/hidden-0=20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			listen := freePort(t)
			g := newCenter(t, func(_ *config.Settings, a *aggregator.Config) { a.Listen = []string{listen} })
			var stream relay
			var said output
			cfg := agentConfig(stream.start(t, listen), stateDir(t), "web-1")
			cfg.Privacy, cfg.Metrics, cfg.Tail.Allow = c.cfg, freePort(t), true
			run := func(aggregator string, frames []testkit.Frame, meanwhile func()) {
				t.Helper()
				cfg := cfg
				cfg.Aggregator = aggregator
				if err := cfg.Validate(); err != nil {
					t.Fatal(err)
				}
				a, err := agent.Start(t.Context(), g.settings, cfg, testkit.WriteFile(t, frames...), slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
				if err != nil {
					t.Fatal(err)
				}
				meanwhile()
				fmt.Fprintln(&said, fetch(t, cfg.Metrics))
				if err := a.Stop(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			places := map[string]string{}
			hold := func(place string, paths ...string) {
				t.Helper()
				for _, path := range paths {
					data, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					places[place] += path + "\n" + textOf(data)
				}
			}
			files := func(dir string) []string {
				t.Helper()
				paths, err := filepath.Glob(filepath.Join(dir, "*"))
				if err != nil || len(paths) == 0 {
					t.Fatalf("files of %s: %v, %v", dir, paths, err)
				}
				return paths
			}
			// While nobody is there to take them, buckets stay in the spool.
			run("unix:"+filepath.Join(t.TempDir(), "nobody.sock"), asked(40000, 20*time.Millisecond), func() {
				showsMetric(t, cfg.Metrics, "httpctl_agent_outcomes_total 40")
			})
			hold("spool", files(cfg.State)...)
			if len(bucketsIn([]byte(places["spool"]))) == 0 {
				t.Fatal("no bucket is in the spool")
			}
			// Then they are delivered, and those of the interval under way while somebody watches.
			// And somebody tails. On a busy machine all may be over before somebody does, and is done again.
			provisional, tailed := false, false
			for runs := 1; runs < 10 && !(provisional && tailed); runs++ {
				run(cfg.Aggregator, asked(50000+10*runs, 100*time.Millisecond), func() {
					ctx, cancel := context.WithCancel(t.Context())
					var tailing sync.WaitGroup
					tailing.Go(func() {
						for ctx.Err() == nil { // until the agent is there
							_ = g.client.Tail(ctx, client.TailQuestion{}, func([]view.Sample, *view.TailSummary) error { return nil })
							time.Sleep(20 * time.Millisecond)
						}
					})
					defer tailing.Wait()
					defer cancel()
					eventually(t, "all is stored", func() error {
						if _, err := g.client.Dashboard(t.Context(), client.Question{Live: true}); err != nil {
							return err
						}
						top, err := g.client.Top(t.Context(), "section", client.Question{Limit: 10})
						if err == nil && top.Total != int64(40*(1+runs)) {
							err = fmt.Errorf("%d requests, want %d", top.Total, 40*(1+runs))
						}
						return err
					})
				})
				stream.mu.Lock()
				provisional = slices.ContainsFunc(bucketsIn(stream.sent), func(b *bucket.Bucket) bool { return !b.Final && len(b.Tables) > 0 })
				tailed = bytes.Contains(stream.sent, []byte("/hidden-0/x"))
				stream.mu.Unlock()
			}
			if !provisional || !tailed {
				t.Errorf("a provisional bucket is in the stream: %v, a live exchange of kept.example.org: %v: nothing is shown by those that are not", provisional, tailed)
			}
			places["stream"] = textOf(stream.sent)
			places["log and metrics"] = said.String()
			g.stop()
			hold("store", filepath.Join(g.cfg.Data, "httpctl.db"))

			var lines strings.Builder
			r, err := agent.Read(t.Context(), []string{testkit.WriteFile(t, asked(40000, 20*time.Millisecond)...)}, agent.ReadOptions{Settings: g.settings, Config: cfg,
				Exchange: view.NewRecords(&lines, view.FormatJSON, view.Style{}).Exchange})
			if err != nil {
				t.Fatal(err)
			}
			places["read"] = lines.String()
			var lists []string
			for _, name := range []string{"client_ip", "domain", "section"} {
				table := tableOf(r, name)
				var rows []string
				for _, row := range table.Top(0, 0) {
					key := row.Keys[len(row.Keys)-1]
					if prefix, digits, ok := strings.Cut(key, "-"); ok && len(digits) >= 16 {
						key = prefix + "-"
					}
					rows = append(rows, fmt.Sprintf("%s=%d", key, row.Values[0]))
				}
				lists = append(lists, strings.Join(rows, " "))
				for _, row := range table.Rows {
					places["read"] += fmt.Sprintln(row.Keys)
				}
			}
			if got := strings.Join(lists, "; "); got != c.rows {
				t.Errorf("the lists are %s, want %s", got, c.rows)
			}
			for place, text := range places {
				for _, secret := range []string{address, name, section} {
					want := strings.Contains(c.found, secret) && place != "log and metrics"
					if got := strings.Contains(text, secret); got != want {
						t.Errorf("%s in %s: %v, want %v", secret, place, got, want)
					}
				}
				if place != "log and metrics" && !strings.Contains(text, "kept.example.org") {
					t.Errorf("%s does not name kept.example.org, which is listed: nothing is shown by it", place)
				}
			}
			if c.cfg.Clients == privacy.Hash && !strings.Contains(places["store"], "[0 server c-") {
				t.Error("no hash of a client is in the store")
			}
		})
	}
}
