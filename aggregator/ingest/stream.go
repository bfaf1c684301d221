package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

type serverStream = grpc.BidiStreamingServer[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]

// agent is a host and the state of its connection; guarded by Service.mu.
type agent struct {
	Agent
	stream        *stream // nil while it is away
	provisional   *bucket.Bucket
	provisionalAt time.Time
	lives         []life    // the incarnations that came lately, the newest last
	cloned        time.Time // when one came back that another had taken the place of
	clonedLogged  time.Time
}

// stream is one agent's stream. A receiver reads and checks; a sender sends, which alone may.
type stream struct {
	cancel context.CancelCauseFunc
	// slots holds a token for each final bucket that was read and not yet answered.
	slots chan struct{}
	wake  chan struct{}

	mu       sync.Mutex
	welcome  *httpctlv1.Welcome
	settings *httpctlv1.Settings // the newest not yet sent
	fleet    *httpctlv1.Fleet    // as well
	tails    *httpctlv1.Tails    // as well
	asked    *httpctlv1.Tails    // what it was asked for last
	results  []*httpctlv1.BucketResult

	// Of messages about tails; they belong to the receiver.
	id          uint64
	tailSecond  int64
	tailMessage int // in that second
}

func (st *stream) answer(r *httpctlv1.BucketResult) {
	st.mu.Lock()
	st.results = append(st.results, r)
	st.mu.Unlock()
	st.notify()
}

func (st *stream) setSettings(m *httpctlv1.Settings) {
	st.mu.Lock()
	st.settings = m
	st.mu.Unlock()
	st.notify()
}

func (st *stream) setFleet(m *httpctlv1.Fleet) {
	st.mu.Lock()
	st.fleet = m
	st.mu.Unlock()
	st.notify()
}

// setTails asks the agent for live exchanges, unless it is asked for the same already.
func (st *stream) setTails(m *httpctlv1.Tails) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(m.GetTails()) == 0 && len(st.asked.GetTails()) == 0 || proto.Equal(m, st.asked) {
		return
	}
	st.asked, st.tails = m, m
	st.notify()
}

func (st *stream) notify() {
	select {
	case st.wake <- struct{}{}:
	default: // the sender is awake already
	}
}

// take returns what is to be sent, in order, and how many buckets it answers.
func (st *stream) take() (out []*httpctlv1.DeliverResponse, answered int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.welcome != nil {
		out = append(out, &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Welcome{Welcome: st.welcome}})
		st.welcome = nil
	}
	if st.settings != nil {
		out = append(out, &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Settings{Settings: st.settings}})
		st.settings = nil
	}
	if st.fleet != nil {
		out = append(out, &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Fleet{Fleet: st.fleet}})
		st.fleet = nil
	}
	if st.tails != nil {
		out = append(out, &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Tails{Tails: st.tails}})
		st.tails = nil
	}
	if len(st.results) > 0 {
		out = append(out, &httpctlv1.DeliverResponse{Message: &httpctlv1.DeliverResponse_Ack{Ack: &httpctlv1.Ack{Results: st.results}}})
		answered = len(st.results)
		st.results = nil
	}
	return out, answered
}

// Deliver implements the IngestService.
func (s *Service) Deliver(g serverStream) error {
	s.mu.Lock()
	group := s.group
	s.mu.Unlock()
	if group == nil || group.Context().Err() != nil {
		return status.Error(codes.Unavailable, "the aggregator is not ready")
	}
	ctx, cancel := context.WithCancelCause(g.Context())
	defer cancel(nil)
	st := &stream{cancel: cancel, slots: make(chan struct{}, unackedPerStream), wake: make(chan struct{}, 1)}
	// Both end when this handler returns, since that ends g: also a Send to an agent that does not
	// read, which nothing else would.
	group.Go("ingest: receive", func(context.Context) error {
		cancel(s.guard("receive from an agent", func() error { return s.receive(ctx, st, g) }))
		return nil
	})
	group.Go("ingest: send", func(context.Context) error {
		if err := st.send(ctx, g); err != nil {
			cancel(err)
		}
		return nil
	})
	select {
	case <-group.Context().Done():
		return status.Error(codes.Unavailable, "the aggregator is stopping")
	case <-ctx.Done():
		if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
			return err
		}
		return nil // the agent said that it is done, and everything was answered
	}
}

// send sends what there is for the agent until ctx ends.
func (st *stream) send(ctx context.Context, g serverStream) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-st.wake:
		}
		out, answered := st.take()
		for _, m := range out {
			if err := g.Send(m); err != nil {
				return err
			}
		}
		for range answered {
			<-st.slots
		}
	}
}

// receive reads an agent's messages until the stream ends, and returns why it did: io.EOF when
// the agent closed it and has all its answers.
func (s *Service) receive(ctx context.Context, st *stream, g serverStream) error {
	timer := time.AfterFunc(helloWait, func() {
		st.cancel(s.reject(g.Context(), "hello", codes.DeadlineExceeded, "no hello within %s", helloWait))
	})
	defer timer.Stop()
	first, err := g.Recv()
	if err != nil {
		return s.unread(g.Context(), err)
	}
	timer.Stop()
	hello := first.GetHello()
	if hello == nil {
		return s.reject(g.Context(), "protocol", codes.FailedPrecondition, "the first message must be hello")
	}
	a, err := s.admit(g.Context(), st, hello)
	if err != nil {
		return err
	}
	defer s.leave(a, st)
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			for range cap(st.slots) { // all tokens: nothing is unanswered
				select {
				case st.slots <- struct{}{}:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return io.EOF
		}
		if err != nil {
			return s.unread(g.Context(), err)
		}
		switch m := m.GetMessage().(type) {
		case *httpctlv1.DeliverRequest_Bucket:
			err = s.take(ctx, a, st, m.Bucket)
		case *httpctlv1.DeliverRequest_Samples:
			err = s.takeSamples(g.Context(), a, st, m.Samples)
		case *httpctlv1.DeliverRequest_Hello:
			err = s.reject(g.Context(), "protocol", codes.FailedPrecondition, "hello may only come first")
		default: // of a newer agent: what this one must know comes in hello and bucket
		}
		if err != nil {
			return err
		}
	}
}

// reject counts and logs that a stream is ended, and returns the error that ends it.
func (s *Service) reject(ctx context.Context, reason string, code codes.Code, format string, args ...any) error {
	s.metrics.rejected.WithLabelValues(reason).Inc()
	err := status.Errorf(code, format, args...)
	if quiet, ok := s.rejections.pass(time.Now()); ok {
		s.log.Warn("the stream of an agent is ended", "peer", peerOf(ctx), "reason", security.CleanText(status.Convert(err).Message()), "others_since_last_logged", quiet)
	}
	return err
}

// unread tells what gRPC could not read from a stream that merely ended.
func (s *Service) unread(ctx context.Context, err error) error {
	switch message := status.Convert(err).Message(); status.Code(err) {
	case codes.ResourceExhausted:
		// Agents know this one by its text.
		return s.reject(ctx, "too_large", codes.ResourceExhausted, "%s", message)
	case codes.Internal, codes.Unimplemented:
		return s.reject(ctx, "protocol", status.Code(err), "%s", message)
	}
	return err
}

// peerOf is the address that a stream comes from.
func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// admit checks who an agent is and makes st the stream of its host.
func (s *Service) admit(ctx context.Context, st *stream, hello *httpctlv1.Hello) (*agent, error) {
	reject := func(reason string, code codes.Code, format string, args ...any) (*agent, error) {
		return nil, s.reject(ctx, reason, code, format, args...)
	}
	var info Agent
	if len(hello.GetHostId()) != len(info.Host) || len(hello.GetIncarnation()) != len(info.Incarnation) {
		return reject("hello", codes.InvalidArgument, "host_id and incarnation must have 16 bytes")
	}
	copy(info.Host[:], hello.GetHostId())
	copy(info.Incarnation[:], hello.GetIncarnation())
	if info.Host.IsZero() || info.Incarnation.IsZero() {
		return reject("hello", codes.InvalidArgument, "host_id and incarnation must not be zero")
	}
	info.Name, info.Version = hello.GetHostName(), hello.GetVersion()
	if len(info.Name) > maxName || len(info.Version) > maxName || !utf8.ValidString(info.Name) || !utf8.ValidString(info.Version) {
		return reject("hello", codes.InvalidArgument, "host_name and version must be UTF-8 of at most %d bytes", maxName)
	}
	info.Backlog, info.Peer = hello.GetBacklog(), peerOf(ctx)
	certain := false
	if s.deps.Admit != nil {
		var err error
		if info.Identity, certain, err = s.deps.Admit(ctx, info.Host); err != nil {
			return reject("identity", status.Code(err), "%s", status.Convert(err).Message())
		}
	}
	now := time.Now()
	info.Connected, info.Since, info.LastMessage = true, now, now
	info.Tails = hello.GetTails()
	addresses := parseAddresses(hello.GetAddresses())

	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[info.Host]
	switch {
	case a == nil:
		if !s.makeRoom() {
			return reject("full", codes.Unavailable, "%d agents are connected, the most that ingest.max_agents allows", s.maxAgents)
		}
		a = &agent{}
		s.agents[info.Host] = a
	case a.stream != nil && a.Identity != info.Identity && !certain:
		return reject("identity", codes.PermissionDenied, "host %s is connected from %s without a certificate: stop that agent first, if this one is the host's", info.Host, a.Peer)
	}
	if old := a.stream; old != nil {
		s.metrics.rejected.WithLabelValues("replaced").Inc()
		old.cancel(status.Error(codes.Aborted, "a newer stream of this host has taken over"))
	} else {
		s.metrics.agents.Inc()
	}
	s.noteLife(a, &info, now)
	if a.Incarnation == info.Incarnation {
		info.ObservedFrom = a.ObservedFrom
	} else {
		a.provisional = nil
	}
	a.Agent, a.stream = info, st
	s.directory.connect(info.Host, addresses)
	s.wakeFleet()
	s.streams++
	st.id = s.streams
	if s.tails != nil && info.Tails {
		if m := s.tails(info.Host, info.Name); len(m.GetTails()) > 0 {
			st.asked, st.tails = m, m
		}
	}
	st.welcome = &httpctlv1.Welcome{Settings: s.current, Version: s.deps.Version, Fleet: s.fleet, TakesAhead: true, BucketFormat: bucket.FormatVersion}
	st.notify()
	return a, nil
}

// makeRoom sees to it that one more host can be remembered, by forgetting the one that has been
// away longest. It reports false if all of them are connected.
func (s *Service) makeRoom() bool {
	if len(s.agents) < s.maxAgents {
		return true
	}
	var oldest *agent
	for _, a := range s.agents {
		if a.stream == nil && (oldest == nil || a.Since.Before(oldest.Since)) {
			oldest = a
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.agents, oldest.Host)
	return true
}

// leave notes that a stream has ended, unless another has taken its place.
func (s *Service) leave(a *agent, st *stream) {
	s.mu.Lock()
	if a.stream == st {
		a.stream, a.Connected, a.Since = nil, false, time.Now()
		s.directory.disconnect(a.Host)
		s.metrics.agents.Dec()
	}
	from := Tailed{Host: a.Host, Name: a.Name, Stream: st.id}
	s.mu.Unlock()
	if s.deps.OnTailedGone != nil {
		s.deps.OnTailedGone(from)
	}
}

// decoders bounds how many buckets are decoded at a time, since one that is made to
// can take some 100 MB of memory while it is.
var decoders = func() chan *bucket.Decoder {
	c := make(chan *bucket.Decoder, runtime.GOMAXPROCS(0))
	for range cap(c) {
		c <- new(bucket.Decoder)
	}
	return c
}()

// take checks a bucket and hands it on. The error ends the stream; a bad bucket alone does not.
func (s *Service) take(ctx context.Context, a *agent, st *stream, m *httpctlv1.Bucket) error {
	data := m.GetData()
	s.metrics.bytes.Add(float64(len(data)))
	var b *bucket.Bucket
	var outline *store.Outline
	var extract Extract
	bad := s.guard("read a bucket", func() (err error) {
		b, outline, extract, err = s.decode(data, a.Host)
		return err
	})
	now := time.Now()
	tooNew := errors.Is(bad, errTooNew) && b.Start > now.Add(-keptTooNew).UnixNano()
	future := (bad == nil || tooNew) && b.Start > now.Add(maxFuture).UnixNano()
	s.mu.Lock()
	a.LastMessage = now
	if bad == nil && b.Final && !future && a.stream == st && a.Backlog > 0 { // one of the future may stay in the spool
		a.Backlog--
	}
	if bad == nil && a.stream == st && (a.ObservedFrom == 0 || b.ObservedFrom < a.ObservedFrom) {
		a.ObservedFrom = b.ObservedFrom
	}
	s.mu.Unlock()
	if bad == nil && !b.Final {
		s.keepProvisional(a, st, b, len(data))
		return nil
	}
	select {
	case st.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	verdict, text := httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED, refusedText
	switch {
	case future:
		verdict, text = httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE, "a bucket is not stored; its agent keeps it, or declares the interval unobserved"
		bad = fmt.Errorf("it is dated %s, more than %s after now by the aggregator's clock, which says %s: set the clock that is wrong",
			time.Unix(0, b.Start).UTC().Format(time.RFC3339), maxFuture, now.UTC().Format(time.RFC3339))
	case tooNew:
		verdict, text = httpctlv1.BucketStatus_BUCKET_STATUS_TOO_NEW, "a bucket of an agent that is newer than this aggregator is not stored; its agent keeps it"
	}
	if bad != nil {
		s.metrics.buckets.WithLabelValues(label(verdict)).Inc()
		s.logRefusal(text, a.Host, bad.Error())
		st.answer(&httpctlv1.BucketResult{Sequence: m.GetSequence(), Status: verdict, Reason: bad.Error()})
		return nil
	}
	skewed := b.Start > now.Add(maxAhead).UnixNano()
	if skewed {
		s.metrics.skewed.Inc()
	}
	size := int64(len(data))
	if outline != nil {
		size += outline.Bytes()
		if t := outline.Tables(); t != nil {
			const schema = 160 // of which the texts are those of the decoder
			size += schema * int64(len(*t))
		}
	}
	if extract != nil {
		size += int64(extract.Size())
	}
	if err := s.budget.acquire(ctx, size); err != nil {
		return err
	}
	select {
	case s.queue <- &delivery{item: store.Item{Header: &b.Header, Data: data, Skewed: skewed, Ahead: m.GetAhead(), Outline: outline}, extract: extract, size: size, sequence: m.GetSequence(), stream: st}:
		return nil
	case <-ctx.Done():
		s.budget.release(size)
		return context.Cause(ctx)
	}
}

// decode verifies a bucket as a whole, and that it is one that this host may send; with errTooNew it returns it all the same. Of a final one it returns the
// header, its outline for the store, and what is to be had of it once it is stored.
func (s *Service) decode(data []byte, host bucket.ID) (*bucket.Bucket, *store.Outline, Extract, error) {
	b, err := check(data, host)
	if err != nil {
		return nil, nil, nil, err
	}
	d := <-decoders
	defer func() { decoders <- d }()
	if !b.Final { // is kept
		b, err := bucket.Decode(data)
		if err == nil {
			err = checkTables(b.Tables)
		}
		return b, nil, nil, err
	}
	full, err := d.Decode(data) // the store keeps the bytes
	if err != nil {
		return nil, nil, nil, err
	}
	if err := checkTables(full.Tables); err != nil {
		return b, nil, nil, err
	}
	outline := store.WholeOutlineOf(full, data)
	if s.deps.Extract == nil {
		return b, outline, nil, nil
	}
	return b, outline, s.deps.Extract(full), nil
}

// check verifies a bucket's checksum and header.
func check(data []byte, host bucket.ID) (*bucket.Bucket, error) {
	h, err := bucket.DecodeHeader(data)
	if err != nil {
		return nil, err
	}
	b := &bucket.Bucket{Header: *h}
	switch {
	case h.Host != host:
		return nil, fmt.Errorf("it is of host %s, the stream of %s", h.Host, host)
	case h.Incarnation.IsZero():
		return nil, errors.New("its incarnation is zero")
	case h.Width < minWidth || h.Width > maxWidth || maxWidth%h.Width != 0:
		return nil, fmt.Errorf("its width %s does not divide one minute", h.Width)
	case h.Start <= 0 || h.Start%int64(h.Width) != 0:
		return nil, fmt.Errorf("its start %d is no multiple of its width %s", h.Start, h.Width)
	case max(h.Start, h.ClosedThrough, h.ObservedFrom) > bucket.MaxTime:
		return nil, fmt.Errorf("it speaks of a time after %s", time.Unix(0, bucket.MaxTime).UTC().Format(time.DateOnly))
	case len(h.HostName) > maxName || !utf8.ValidString(h.HostName):
		return nil, fmt.Errorf("its host name is no UTF-8 of at most %d bytes", maxName)
	}
	for _, u := range h.Unobserved {
		if u.To > bucket.MaxTime {
			return nil, errors.New("it declares a span that never ends")
		}
		if u.From >= u.To {
			return nil, fmt.Errorf("it declares an empty span [%d, %d)", u.From, u.To)
		}
	}
	return b, nil
}

// keepProvisional makes b the provisional bucket of its host, if it is newer than the one there.
func (s *Service) keepProvisional(a *agent, st *stream, b *bucket.Bucket, size int) {
	s.metrics.provisional.Inc()
	if size > maxProvisional {
		s.metrics.badProvisional.Inc()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.stream != st {
		return // of a stream that was replaced
	}
	if p := a.provisional; p != nil && p.Name == b.Name && p.Revision > b.Revision {
		return
	}
	a.provisional, a.provisionalAt = b, time.Now()
	s.changes.Add(1)
}
