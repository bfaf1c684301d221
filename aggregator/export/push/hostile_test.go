package push

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/export"
)

// TestBadReceivers: whatever a receiver does, a request ends with its deadline at the latest, is tried again or given up, and costs no memory.
func TestBadReceivers(t *testing.T) {
	var said atomic.Int64
	var drip atomic.Pointer[http.HandlerFunc]
	over := make(chan struct{}) // a server does not see that a client went whose request it has not read
	endless := func(w io.Writer, r *http.Request) {
		for block := make([]byte, 64<<10); r.Context().Err() == nil; {
			n, err := w.Write(block)
			if said.Add(int64(n)); err != nil {
				return
			}
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*drip.Load())(w, r) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	defer close(over)
	for what, c := range map[string]struct {
		do    func(w http.ResponseWriter, r *http.Request)
		taken bool
	}{
		"says nothing":  {do: func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }},
		"reads nothing": {do: func(http.ResponseWriter, *http.Request) { <-over }},
		"ends in the middle": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}},
		"drips": {do: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}},
		"never ends": {do: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w, r)
		}},
		"sends a bomb": {do: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusBadGateway)
			endless(gzip.NewWriter(w), r)
		}},
		"has endless headers": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}},
		"takes it, with much to say": {taken: true, do: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			endless(w, r)
		}},
		"redirects to itself": {do: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
		}},
	} {
		do := http.HandlerFunc(c.do)
		drip.Store(&do)
		said.Store(0)
		p := newPusher(t, export.ToRemoteWrite, export.Receiver{URL: server.URL})
		deadline := 300 * time.Millisecond
		if c.taken {
			deadline = sendWait // it is done before
		}
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		began := time.Now()
		_, _, err := p.sender.send(ctx, make([]byte, 8<<20)) // more than the kernel keeps for a receiver that reads nothing
		cancel()
		var f *failure
		if (err == nil) != c.taken || errors.As(err, &f) && f.final {
			t.Errorf("a receiver that %s: %v, want it taken %v, or to be tried again", what, err, c.taken)
		}
		if err != nil && len(err.Error()) > maxAnswer+200 {
			t.Errorf("a receiver that %s: an error of %d bytes", what, len(err.Error()))
		}
		if took := time.Since(began); !c.taken && took > time.Minute {
			t.Errorf("a receiver that %s kept it for %v", what, took)
		}
		if n := said.Load(); n > 64<<20 {
			t.Errorf("a receiver that %s could say %d bytes", what, n)
		}
		p.sender.close()
	}
}
