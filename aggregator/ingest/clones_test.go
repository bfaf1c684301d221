package ingest

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestClones: an incarnation that comes back after another means two agents; restarts, however many, do not.
func TestClones(t *testing.T) {
	now := time.Unix(1e9, 0)
	var log journal
	s := &Service{log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range []struct {
		name  string
		comes []byte // incarnations, one after another
		wait  time.Duration
		want  []string // nil: no clone
	}{
		{"connects again", []byte{1, 1, 1}, time.Second, nil},
		{"restarts", []byte{1, 2, 3, 4, 5, 6, 7}, time.Second, nil},
		{"restarts, and connects again", []byte{1, 2, 2, 3, 3}, time.Second, nil},
		{"a copy", []byte{1, 2, 1}, time.Second, []string{"web2 at 192.0.2.2", "web1 at 192.0.2.1"}},
		{"two copies", []byte{1, 2, 3, 1, 2, 3}, time.Second, []string{"web1 at 192.0.2.1", "web2 at 192.0.2.2", "web3 at 192.0.2.3"}},
		{"a copy of one that restarted", []byte{1, 2, 3, 2}, time.Second, []string{"web1 at 192.0.2.1", "web3 at 192.0.2.3", "web2 at 192.0.2.2"}},
		{"ten copies", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 9}, time.Second, []string{"web7 at 192.0.2.7", "web8 at 192.0.2.8", "web10 at 192.0.2.10", "web9 at 192.0.2.9"}},
	} {
		a := &agent{stream: &stream{}}
		s.agents = map[bucket.ID]*agent{hostA: a}
		for _, n := range c.comes {
			now = now.Add(c.wait)
			s.noteLife(a, &Agent{Host: hostA, Incarnation: bucket.ID{n}, Name: fmt.Sprintf("web%d", n), Peer: fmt.Sprintf("192.0.2.%d:4711", n)}, now)
		}
		if got := !a.cloned.IsZero(); got != (c.want != nil) || got && !slices.Equal(a.names(), c.want) {
			t.Errorf("%s: a clone = %v, %q; want %q", c.name, got, a.names(), c.want)
		}
		if len(a.lives) > maxLives {
			t.Errorf("%s: %d incarnations are remembered, want at most %d", c.name, len(a.lives), maxLives)
		}
	}
	// It is logged once an hour, and forgotten some minutes after it ended.
	a := &agent{stream: &stream{}}
	come := func(n byte) { s.noteLife(a, &Agent{Host: hostA, Incarnation: bucket.ID{n}, Name: "web"}, now) }
	before := strings.Count(log.String(), "same host id")
	for i := range 120 {
		come(byte(i % 2))
		now = now.Add(time.Minute - time.Second)
	}
	if n := strings.Count(log.String(), "same host id") - before; n != 2 {
		t.Errorf("two hours of it are logged %d times, want twice", n)
	}
	come(1)
	a.stream, a.Since = nil, now
	now = now.Add(cloneKept + time.Second)
	if come(2); len(a.lives) != 1 {
		t.Errorf("after a silence %d incarnations are remembered, want the new one", len(a.lives))
	}
}

// TestClonesAreTold: over streams, with the count and without losing a bucket of either.
func TestClonesAreTold(t *testing.T) {
	s, c := serve(t, DefaultConfig(), storeAll)
	var last client
	for _, inc := range []bucket.ID{inc1, inc2, inc1, inc2} {
		stream := connect(t, c, hostA, inc)
		b := sound(1)
		b.Incarnation = inc
		send(t, stream, 1, encode(t, b))
		if r := answers(t, stream, 1)[1]; r.GetStatus() != httpctlv1.BucketStatus_BUCKET_STATUS_STORED {
			t.Errorf("a bucket of one of them: %v, want it stored", r)
		}
		if last != nil {
			if _, err := last.Recv(); status.Code(err) != codes.Aborted {
				t.Errorf("the stream before ends with %v, want Aborted", err)
			}
		}
		last = stream
	}
	if got := s.Clones(); len(got) != 1 || got[0].Host != hostA || len(got[0].Agents) != 2 {
		t.Errorf("Clones() = %+v, want the one host with two agents", got)
	}
}
