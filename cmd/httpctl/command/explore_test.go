package command

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/view"
)

// exploring runs the interactive view, with what is written to keys as its keyboard.
type exploring struct {
	out  paper
	keys *os.File
	done chan error
}

func explored(t *testing.T, ctx context.Context, fetch func(context.Context, live.Request) (*view.Dashboard, error)) *exploring {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = read.Close(), write.Close() })
	e := &exploring{keys: write, done: make(chan error, 1)}
	o := Live{Out: &e.out, Terminal: true, Keys: read, Now: time.Now, Style: func() view.Style { return view.Style{Width: 80, Height: 24} }}
	go func() { e.done <- RunDashboard(ctx, o, fetch) }()
	return e
}

// wait waits until the screen has the text, or the view has ended.
func (e *exploring) wait(t *testing.T, text string) {
	t.Helper()
	for range 18_000 { // three minutes
		if strings.Contains(e.out.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %q on the screen: %q", text, e.out.String())
}

// left reports whether the screen was left after it was entered.
func (e *exploring) left() bool {
	text := e.out.String()
	return strings.Contains(text, "\x1b[?1049h") && strings.LastIndex(text, "\x1b[?1049l") > strings.LastIndex(text, "\x1b[?1049h")
}

func calm() *view.Dashboard {
	return &view.Dashboard{Status: view.Status{Time: noon, Interval: 10 * time.Second, Refresh: 100 * time.Millisecond, Alert: view.AlertStatus{Scope: "fleet", State: view.Normal}}}
}

// TestExplore: keys reach the view; what is gone into is asked for; q, a context that ends and a panic leave the screen.
func TestExplore(t *testing.T) {
	asked := make(chan live.Request, 1000)
	fetch := func(_ context.Context, r live.Request) (*view.Dashboard, error) {
		asked <- r
		d := calm()
		d.Hosts = []view.Host{{ID: "0a", Name: "web-1", Health: view.Reporting}}
		return d, nil
	}
	e := explored(t, t.Context(), fetch)
	e.wait(t, "web-1")
	_, _ = e.keys.WriteString("\r")
	for r := range asked {
		if len(r.Filters) > 0 {
			if r.Filters[0] != (live.Filter{Column: "host", Value: "web-1"}) {
				t.Errorf("asked for %v", r)
			}
			break
		}
	}
	_, _ = e.keys.WriteString("q")
	if err := <-e.done; err != nil || !e.left() {
		t.Errorf("q ends it with %v, screen left: %v", err, e.left())
	}

	ctx, cancel := context.WithCancel(t.Context())
	e = explored(t, ctx, fetch)
	e.wait(t, "web-1")
	cancel()
	if err := <-e.done; err != nil || !e.left() {
		t.Errorf("SIGTERM ends it with %v, screen left: %v", err, e.left())
	}

	calls := 0
	e = explored(t, t.Context(), func(context.Context, live.Request) (*view.Dashboard, error) {
		if calls++; calls > 1 {
			panic("of the test")
		}
		return calm(), nil
	})
	if err := <-e.done; err == nil || !e.left() {
		t.Errorf("a panic ends it with %v, screen left: %v", err, e.left())
	}

	gone := errors.New("gone")
	e = explored(t, t.Context(), func(context.Context, live.Request) (*view.Dashboard, error) { return nil, gone })
	if err := <-e.done; err != gone || e.out.String() != "" {
		t.Errorf("a first fetch that fails: %v with %q, want the error and nothing drawn", err, e.out.String())
	}
}

// TestOnlyTheNewestQuestion: one that is overtaken is not waited for.
func TestOnlyTheNewestQuestion(t *testing.T) {
	l := latest{ctx: t.Context()}
	first := l.begin()
	second := l.begin()
	if first.Err() == nil || second.Err() != nil {
		t.Errorf("the first has %v, the second %v", first.Err(), second.Err())
	}
	l.stop()
	if second.Err() == nil {
		t.Error("the last one goes on after the end")
	}
}

func TestNarrow(t *testing.T) {
	q := narrow(client.Question{Filters: []client.Filter{{Column: "role", Values: []string{"server"}}}, Live: true},
		live.Request{Filters: []live.Filter{{Column: "host", Value: "web-1"}}, Rows: 500})
	if got, want := filterText(q), "role=server host=web-1"; got != want || q.Limit != 500 || !q.Live {
		t.Errorf("narrow = %+v, want %s, 500 rows, live", q, want)
	}
}
