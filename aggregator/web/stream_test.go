package web

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// viewer reads a stream.
type viewer struct {
	t      *testing.T
	answer *http.Response
	lines  *bufio.Reader
}

func (x *site) watch(query string, header ...string) *viewer {
	x.t.Helper()
	ctx, cancel := context.WithCancel(x.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.url+"api/v1/stream"+query, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := x.client.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { cancel(); a.Body.Close() })
	var body io.Reader = a.Body
	if a.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(a.Body); err != nil {
			x.t.Fatal(err)
		}
	}
	return &viewer{x.t, a, bufio.NewReader(body)}
}

// next reads one event, or comment, as its lines by name; a comment's name is "".
func (v *viewer) next() (map[string]string, error) {
	event := map[string]string{}
	for {
		line, err := v.lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return event, nil
		}
		name, value, _ := strings.Cut(line, ":")
		event[name] = strings.TrimPrefix(value, " ")
	}
}

func (v *viewer) want(name string) map[string]string {
	v.t.Helper()
	event, err := v.next()
	if err != nil || event["event"] != name {
		v.t.Fatalf("the stream has %v, %v, want an event %s", event, err, name)
	}
	return event
}

// TestStream: a picture at once, one for each change, none without, plain and compressed.
func TestStream(t *testing.T) {
	for _, coding := range []string{"", "gzip"} {
		t.Run("coding="+coding, func(t *testing.T) {
			x := newSite(t)
			v := x.watch("?since=15m&limit=3&host=web-1", "Accept-Encoding", coding)
			if got := v.answer.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" || v.answer.Header.Get("Content-Encoding") != coding {
				t.Errorf("Content-Type %q, Content-Encoding %q", got, v.answer.Header.Get("Content-Encoding"))
			}
			if event, err := v.next(); err != nil || event["retry"] != "2000" {
				t.Errorf("the stream begins with %v, %v", event, err)
			}
			first := v.want("dashboard")
			_, body := x.get("api/v1/dashboard?since=15m&limit=3&host=web-1")
			var a, b any
			if err := json.Unmarshal([]byte(first["data"]), &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(body), &b); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(a) != fmt.Sprint(b) || strings.ContainsAny(first["data"], "<>&") {
				t.Errorf("the stream's picture\n%s\nis not the dashboard\n%s", first["data"], body)
			}
			q := x.fake.last.Load()
			if !q.Live || q.Limit != 3 || len(q.Filters) != 1 || q.Range.SinceUnixNs != ns(-15*time.Minute) {
				t.Errorf("asked was %v", q)
			}
			x.changes.Add(1)
			if second := v.want("dashboard"); second["id"] == first["id"] || second["id"] == "" {
				t.Errorf("ids are %q and %q", first["id"], second["id"])
			}
			asked := x.fake.asked.Load()
			time.Sleep(20 * x.streams.every)
			if more := x.fake.asked.Load() - asked; more != 0 {
				t.Errorf("%d questions though nothing has changed", more)
			}
		})
	}
}

// TestQuietReconnect: who has the newest picture gets the next, and not the same again.
func TestQuietReconnect(t *testing.T) {
	x := newSite(t)
	keeps := x.watch("")
	_, _ = keeps.next()
	first := keeps.want("dashboard")
	again := x.watch("", "Last-Event-ID", first["id"])
	_, _ = again.next()
	stale := x.watch("", "Last-Event-ID", "before-1")
	_, _ = stale.next()
	if got := stale.want("dashboard"); got["id"] != first["id"] {
		t.Errorf("who has an older picture got %q, want %q", got["id"], first["id"])
	}
	x.changes.Add(1)
	if got := again.want("dashboard"); got["id"] == first["id"] {
		t.Error("who has the newest picture got it again")
	}
}

// TestStreamsShareQuestions: many who look at the same cost as one.
func TestStreamsShareQuestions(t *testing.T) {
	x := newSite(t)
	var all []*viewer
	for i := range 20 {
		v := x.watch("?status=5xx", "Accept-Encoding", []string{"", "gzip"}[i%2])
		_, _ = v.next()
		v.want("dashboard")
		all = append(all, v)
	}
	if n := x.fake.asked.Load(); n != 1 {
		t.Errorf("20 streams asked %d times", n)
	}
	x.changes.Add(1)
	for _, v := range all {
		v.want("dashboard")
	}
	if n := x.fake.asked.Load(); n != 2 {
		t.Errorf("20 streams asked %d times for 2 pictures", n)
	}
}

func TestStreamTellsFailures(t *testing.T) {
	x := newSite(t)
	v := x.watch("?limit=404")
	_, _ = v.next()
	if what, _, _ := faultOf(t, v.want("failure")["data"]); what != "the store is damaged" {
		t.Errorf("failure %q", what)
	}
	v.want("failure") // asked again
	if a, body := x.get("api/v1/stream?step=1m"); a.StatusCode != 400 {
		t.Errorf("a stream of a wrong question: %s %s", a.Status, body)
	}
}

// TestStreamEnds: with the right to it, and with the aggregator; and nothing is asked any more.
func TestStreamEnds(t *testing.T) {
	for name, end := range map[string]func(*site){
		"revoked": func(x *site) { x.end() },
		"stopped": func(x *site) {
			if err := x.Stop(context.Background()); err != nil {
				x.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newSite(t)
			v := x.watch("")
			_, _ = v.next()
			v.want("dashboard")
			end(x)
			if event, err := v.next(); err == nil {
				t.Errorf("the stream goes on with %v", event)
			}
			for begin := time.Now(); ; time.Sleep(time.Millisecond) {
				x.streams.mu.Lock()
				open, feeds, from := x.streams.open, len(x.streams.feeds), len(x.streams.from)
				x.streams.mu.Unlock()
				if open+feeds+from == 0 {
					break
				}
				if time.Since(begin) > 3*time.Minute {
					t.Fatalf("%d streams of %d questions from %d addresses are left", open, feeds, from)
				}
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	x := newSite(t)
	x.streams.beat = 5 * time.Millisecond
	for _, coding := range []string{"", "gzip"} {
		v := x.watch("", "Accept-Encoding", coding)
		_, _ = v.next()
		beats := 0
		for range 5 {
			event, err := v.next()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := event[""]; ok {
				beats++
			}
		}
		if beats < 4 {
			t.Errorf("%d of 5 events are comments", beats)
		}
	}
}

// TestStreamEndsWithTheRole: who may not ask any more is told nothing more.
func TestStreamEndsWithTheRole(t *testing.T) {
	x := newSite(t)
	x.streams.beat = 5 * time.Millisecond
	var lost atomic.Bool
	x.deps.Still = func(context.Context, string) error {
		if lost.Load() {
			return errors.New("lost")
		}
		return nil
	}
	v := x.watch("")
	_, _ = v.next()
	if _, err := v.next(); err != nil {
		t.Fatal(err)
	}
	lost.Store(true)
	for range 100 {
		if _, err := v.next(); err != nil {
			return
		}
	}
	t.Error("the stream goes on without the role")
}

// TestStreamsAreBounded: by address, and by different questions.
func TestStreamsAreBounded(t *testing.T) {
	x := newSite(t)
	x.client.Transport.(*http.Transport).MaxIdleConnsPerHost = 2
	for i := range maxFeedsOfOne {
		v := x.watch(fmt.Sprintf("?limit=%d", i+1))
		_, _ = v.next()
	}
	if a, body := x.get("api/v1/stream?limit=1000"); a.StatusCode != 503 || !strings.Contains(body, "different questions are open from your address") {
		t.Errorf("one more question: %s %s", a.Status, body)
	}
	e := endpoints[apiPrefix+"stream"]
	for i := maxFeedsOfOne; i < maxFeeds; i++ { // of others
		_, leave, err := x.streams.join(e, &http.Request{URL: &url.URL{}}, url.Values{"limit": {fmt.Sprint(1000 + i)}}, fmt.Sprintf("192.0.2.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	if _, _, err := x.streams.join(e, &http.Request{URL: &url.URL{}}, url.Values{"limit": {"1"}, "since": {"1h"}}, "198.51.100.1"); err == nil {
		t.Errorf("more than %d different questions of all", maxFeeds)
	}
	for range maxStreamsOfOne - maxFeedsOfOne {
		v := x.watch("?limit=1")
		_, _ = v.next()
	}
	if a, body := x.get("api/v1/stream?limit=1"); a.StatusCode != 503 || !strings.Contains(body, "from your address") || a.Header.Get("Retry-After") == "" {
		t.Errorf("one more stream: %s %s", a.Status, body)
	}
}
