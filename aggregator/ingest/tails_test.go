package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// connectTails connects an agent that shows live exchanges.
func connectTails(t *testing.T, c httpctlv1.IngestServiceClient, host bucket.ID) client {
	t.Helper()
	h := hello(host, inc1)
	h.Tails = true
	stream := greet(t, c, h)
	if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
		t.Fatalf("Recv() = %v, %v, want a welcome", m, err)
	}
	return stream
}

func sendSamples(t *testing.T, s client, m *httpctlv1.Samples) {
	t.Helper()
	if err := s.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Samples{Samples: m}}); err != nil {
		t.Fatal(err)
	}
}

// asked reads what an agent is asked for.
func askedFor(t *testing.T, s client) string {
	t.Helper()
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.GetTails() == nil {
		t.Fatalf("Recv() = %v, want tails", m)
	}
	var ids []uint64
	for _, one := range m.GetTails().GetTails() {
		ids = append(ids, one.GetId())
	}
	return fmt.Sprint(ids)
}

// TestTails: those agents that show live exchanges are asked, also those that come later, each for what concerns it, and what
// they send is handed on with the stream that it came on.
func TestTails(t *testing.T) {
	s, c := serve(t, DefaultConfig(), storeAll)
	var mu sync.Mutex
	var got []string
	gone := make(chan Tailed, 9)
	s.deps.OnSamples = func(from Tailed, m *httpctlv1.Samples) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%v %s %d %d %d", from.Host == hostA, from.Name, from.Stream, m.GetTail(), len(m.GetSamples())))
	}
	s.deps.OnTailedGone = func(from Tailed) { gone <- from }
	a := connectTails(t, c, hostA)
	quiet := connect(t, c, bucket.ID{0xc}, inc1) // shows nothing
	of := func(host bucket.ID, name string) *httpctlv1.Tails {
		m := &httpctlv1.Tails{Tails: []*httpctlv1.Tail{{Id: 7}}}
		if host == hostB {
			m.Tails = append(m.Tails, &httpctlv1.Tail{Id: 8})
		}
		return m
	}
	s.SetTails(of)
	s.SetTails(of) // the same again is not told
	b := connectTails(t, c, hostB)
	if a, b := askedFor(t, a), askedFor(t, b); a != "[7]" || b != "[7 8]" {
		t.Errorf("the agents are asked for %s and %s, want [7] and [7 8]", a, b)
	}
	sendSamples(t, a, &httpctlv1.Samples{Tail: 7, Samples: make([]*httpctlv1.Sample, 2)})
	send(t, a, 1, encode(t, sound(1))) // answered after what was sent before it
	answers(t, a, 1)
	mu.Lock()
	if want := "true web-1.example.org 1 7 2"; len(got) != 1 || got[0] != want {
		t.Errorf("handed on %q, want [%q]", got, want)
	}
	mu.Unlock()
	s.SetTails(func(bucket.ID, string) *httpctlv1.Tails { return nil })
	if a, b := askedFor(t, a), askedFor(t, b); a != "[]" || b != "[]" {
		t.Errorf("the agents are asked for %s and %s at the end, want nothing", a, b)
	}
	// Who shows nothing was never asked: its next message is the answer to its bucket.
	bad := sound(1)
	bad.Host = hostA
	send(t, quiet, 1, encode(t, bad))
	answers(t, quiet, 1)
	if err := a.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if from := <-gone; from.Host != hostA || from.Stream != 1 {
		t.Errorf("%+v has gone, want stream 1 of host A", from)
	}
}

// TestHostileSamples: what no agent sends ends its own stream, and is handed on to nobody.
func TestHostileSamples(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(client) error
		code codes.Code
		want string
	}{
		{"too many", func(s client) error {
			return s.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Samples{Samples: &httpctlv1.Samples{Samples: make([]*httpctlv1.Sample, maxTailMessage+1)}}})
		}, codes.InvalidArgument, "257 live exchanges"},
		{"too long", func(s client) error {
			return s.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Samples{Samples: &httpctlv1.Samples{Samples: []*httpctlv1.Sample{{UserAgent: strings.Repeat("a", maxTailText+1)}}}}})
		}, codes.InvalidArgument, "4097 bytes"},
		{"too often", func(s client) error {
			for range 3 * tailMessages { // of two seconds at most
				if err := s.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Samples{Samples: &httpctlv1.Samples{}}}); err != nil {
					return nil // it has ended already
				}
			}
			return nil
		}, codes.ResourceExhausted, "more than 400 messages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ingest := serve(t, DefaultConfig(), storeAll)
			handed := make(chan int, 4*tailMessages)
			s.deps.OnSamples = func(_ Tailed, m *httpctlv1.Samples) { handed <- len(m.GetSamples()) }
			other := connectTails(t, ingest, hostB)
			hostile := connectTails(t, ingest, hostA)
			if err := c.send(hostile); err != nil {
				t.Fatal(err)
			}
			_, err := hostile.Recv()
			if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.want) {
				t.Errorf("the stream ends with %v, want %v with %q", err, c.code, c.want)
			}
			for len(handed) > 0 {
				if n := <-handed; n > 0 {
					t.Errorf("%d of its exchanges were handed on", n)
				}
			}
			if n := count(t, s.metrics.rejected.WithLabelValues("samples")); n != 1 {
				t.Errorf("%v streams are counted as ended, want 1", n)
			}
			// The other goes on.
			sendSamples(t, other, &httpctlv1.Samples{Tail: 1, Samples: make([]*httpctlv1.Sample, 1)})
			select {
			case <-handed:
			case <-time.After(3 * time.Minute):
				t.Error("what another agent sends is not handed on")
			}
		})
	}
}
