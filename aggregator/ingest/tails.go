package ingest

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// Tailed is a stream on which live exchanges come.
type Tailed struct {
	Host bucket.ID
	Name string // as the agent says: clean it before showing
	// Stream tells the streams of a host apart: on each the agent counts anew.
	Stream uint64
}

const (
	// tailMessages bounds the messages about tails of one stream in a second. An agent sends four each 100 ms for each of
	// eight tails at most, and one a second without exchanges.
	tailMessages = 400
	// maxTailMessage bounds one of them, in exchanges, and maxTailText the bytes of each string in it. An agent
	// sends at most 64, with strings of 1,024.
	maxTailMessage = 256
	maxTailText    = 4096
)

// SetTails changes what agents that show live exchanges are asked for. of gives it for each of them, now and when it connects; it must not
// block. Nil, of or what it gives, is nothing.
func (s *Service) SetTails(of func(host bucket.ID, name string) *httpctlv1.Tails) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tails = of
	for _, a := range s.agents {
		if a.stream == nil || !a.Tails {
			continue
		}
		m := &httpctlv1.Tails{}
		if of != nil {
			if m = of(a.Host, a.Name); m == nil {
				m = &httpctlv1.Tails{}
			}
		}
		a.stream.setTails(m)
	}
}

// takeSamples checks the live exchanges that an agent sent and hands them on. The error ends the stream.
func (s *Service) takeSamples(ctx context.Context, a *agent, st *stream, m *httpctlv1.Samples) error {
	now := time.Now()
	if second := now.Unix(); st.tailSecond != second {
		st.tailSecond, st.tailMessage = second, 0
	}
	if st.tailMessage++; st.tailMessage > tailMessages {
		return s.reject(ctx, "samples", codes.ResourceExhausted, "more than %d messages of live exchanges in a second", tailMessages)
	}
	if len(m.GetSamples()) > maxTailMessage || len(m.GetRefused()) > maxTailText {
		return s.reject(ctx, "samples", codes.InvalidArgument, "a message of %d live exchanges; want at most %d", len(m.GetSamples()), maxTailMessage)
	}
	for _, x := range m.GetSamples() {
		for _, text := range [...]string{x.GetClient(), x.GetServer(), x.GetRole(), x.GetProtocol(), x.GetMethod(), x.GetDomain(), x.GetSection(), x.GetPath(), x.GetUserAgent(), x.GetEnd()} {
			if len(text) > maxTailText {
				return s.reject(ctx, "samples", codes.InvalidArgument, "a live exchange with a text of %d bytes; want at most %d", len(text), maxTailText)
			}
		}
	}
	if s.deps.OnSamples == nil {
		return nil
	}
	s.mu.Lock()
	from := Tailed{Host: a.Host, Name: a.Name, Stream: st.id}
	a.LastMessage = now
	s.mu.Unlock()
	s.deps.OnSamples(from, m)
	return nil
}
