package uplink

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

type clientStream = grpc.BidiStreamingClient[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]

// session is one stream. Its state belongs to the goroutine of Uplink.run; a receiver hands it
// what comes in, and a sender takes from it what goes out, since a stream that the aggregator
// does not read makes sending wait, and answers must be taken all the same.
type session struct {
	u        *Uplink
	sequence uint64 // of the stream
	cursor   uint64 // the spool's entries up to here were looked at
	lanes    lanes
	ahead    bool // the aggregator takes buckets before older ones
	format   int  // the newest version of a bucket that it reads
	flight   map[uint64]flying
	seqs     map[uint64]bool // of the spool, under way
	bytes    int
	retryAt  time.Time // no final bucket goes out before
	retries  int
	apart    bool // it is told that this clock and the aggregator's are
	older    bool // the aggregator is, than this agent: so it said, and will until the stream ends

	shown *x509.Certificate // to the aggregator; nil without TLS
	turn  time.Time         // when to change to the certificate after it; zero without TLS

	provisionalEvery time.Duration // 0: nobody watches
	provisionalRows  int

	showsTails bool      // as the aggregator was told
	tailing    bool      // it has asked for live exchanges
	nextTail   time.Time // when to look for some
}

// lanes let what was closed lately go before what has waited: with a backlog of a day, a bucket of now would else
// arrive when all of that has. The zero value is one lane, oldest first.
type lanes struct {
	two    bool   // until the backlog is sent
	edge   uint64 // the spool's entries up to here are backlog
	cursor uint64 // those after edge were looked at up to here
}

// split makes all that is in the spool now the backlog, to be looked at from its beginning or where it was looked at.
func (s *session) split() {
	if s.ahead {
		edge := s.u.deps.Queue.Newest()
		s.lanes = lanes{two: true, edge: edge, cursor: edge}
	}
}

// next returns the next bucket of the spool, and whether older ones will follow it.
func (s *session) next() (seq uint64, data []byte, ahead bool, err error) {
	queue := s.u.deps.Queue
	if s.lanes.two && !s.u.single {
		if seq, data, err = queue.Next(s.lanes.cursor); seq != 0 || err != nil {
			s.lanes.cursor = max(seq, s.lanes.cursor)
			return seq, data, true, err
		}
		if s.full(window-liveWindow) || s.older && len(s.flight) > 0 { // one tells whether it takes them
			return 0, nil, false, nil
		}
	}
	seq, data, err = queue.Next(s.cursor)
	if s.lanes.two && err == nil && (seq == 0 || seq > s.lanes.edge) {
		s.lanes.two = false // the backlog is sent; what went before it is under way or done
	}
	s.cursor = max(s.cursor, seq)
	return seq, data, false, err
}

// full reports whether so many buckets are under way.
func (s *session) full(limit int) bool { return len(s.flight) >= limit || s.bytes >= windowBytes }

// flying is a final bucket under way.
type flying struct {
	seq  uint64
	size int
	sent time.Time
}

// session connects and delivers until the stream ends, and returns why.
func (u *Uplink) session(parent context.Context) error {
	conn, shown, err := u.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the stream's own end tells more
	group := lifecycle.NewGroup(parent)
	defer func() {
		_ = group.Stop(context.Background()) // cancels the stream, so both goroutines end
	}()
	ctx := group.Context()
	id := u.deps.Identity()
	id.tails = u.deps.Tails != nil && u.deps.Tails.Allowed()
	stream, first, err := hello(ctx, conn, id, u.deps.Queue.Len())
	if err != nil {
		return explain(err)
	}
	s := &session{u: u, flight: map[uint64]flying{}, seqs: map[uint64]bool{}, ahead: first.GetTakesAhead(), format: max(1, int(first.GetBucketFormat())), shown: shown, showsTails: id.tails}
	if s.showsTails {
		defer u.deps.Tails.Set(nil, "the stream to the aggregator has ended")
	}
	if shown != nil {
		s.turn = turnAt(shown)
	}
	s.split()
	defer u.metrics.inFlight.Set(0)
	u.back(first.GetVersion())
	s.fleet(first.GetFleet()) // before the settings, for which a start waits
	s.settings(first.GetSettings())

	in, out := make(chan *httpctlv1.DeliverResponse), make(chan *httpctlv1.DeliverRequest)
	ended := make(chan error, 2)
	group.Go("uplink: receive", func(ctx context.Context) error {
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return nil
			}
			select {
			case in <- m:
			case <-ctx.Done():
				return nil
			}
		}
	})
	group.Go("uplink: send", func(ctx context.Context) error {
		for {
			select {
			case m := <-out:
				if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv knows the reason
					ended <- err
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	err = s.deliver(ctx, in, out, ended)
	if tooLarge(err) {
		s.suspect()
	} else if len(s.flight) == 0 {
		u.single = false
	}
	if errors.Is(err, errTurned) {
		return err
	}
	return explain(err)
}

// errTurned is returned by a session that ended to go on with a newer certificate, when nothing
// was under way.
var errTurned = errors.New("the certificate is a newer one")

// turnAt is when a stream is given up that was opened with a certificate which has been renewed since: when a
// quarter to a half of the last third of that one's life is left. There is time then to find the new one wrong,
// and a fleet does not come all at once. The aggregator ends the stream with the certificate.
func turnAt(c *x509.Certificate) time.Time {
	last := c.NotAfter.Sub(authority.RenewAt(c))
	return c.NotAfter.Add(-last/4 - rand.N(last/4+1))
}

// turned reports whether it is time to go on with another certificate, which is there.
func (s *session) turned(now time.Time) bool {
	if s.turn.IsZero() || now.Before(s.turn) {
		return false
	}
	if leaf, err := s.u.config().TLS.Leaf(); err == nil && !leaf.Equal(s.shown) {
		return true
	}
	s.turn = now.Add(turnLook)
	return false
}

// hello opens the stream and returns it with the aggregator's welcome.
func hello(ctx context.Context, conn *grpc.ClientConn, id Identity, backlog int) (clientStream, *httpctlv1.Welcome, error) {
	type opened struct {
		stream  clientStream
		welcome *httpctlv1.Welcome
		err     error
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(welcomeWait, func() {
		cancel(fmt.Errorf("no welcome from the aggregator within %s", welcomeWait))
	})
	defer timer.Stop()
	o := func() (o opened) {
		if o.stream, o.err = httpctlv1.NewIngestServiceClient(conn).Deliver(ctx); o.err != nil {
			return o
		}
		m := &httpctlv1.Hello{HostId: id.Host[:], Incarnation: id.Incarnation[:], HostName: id.HostName, Version: id.Version, Backlog: uint64(backlog), Tails: id.tails}
		for _, p := range id.Addresses {
			m.Addresses = append(m.Addresses, append(p.Addr().AsSlice(), byte(p.Bits())))
		}
		o.err = o.stream.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Hello{Hello: m}})
		if o.err != nil && !errors.Is(o.err, io.EOF) {
			return o
		}
		answer, err := o.stream.Recv()
		if o.err = err; err != nil {
			return o
		}
		if o.welcome = answer.GetWelcome(); o.welcome == nil {
			o.err = errors.New("its first message is not a welcome")
		}
		return o
	}()
	if o.err != nil {
		if cause := context.Cause(ctx); cause != nil {
			o.err = cause
		}
		cancel(nil)
	}
	return o.stream, o.welcome, o.err // ctx ends with its parent
}

// deliver runs the session: it offers the next message to the sender while it takes what comes in.
func (s *session) deliver(ctx context.Context, in <-chan *httpctlv1.DeliverResponse, out chan<- *httpctlv1.DeliverRequest, ended <-chan error) error {
	var (
		next      *httpctlv1.DeliverRequest // offered to the sender
		nextProv  time.Time
		spoolFail time.Time // the spool is not asked before
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := s.u.last
	for {
		now := time.Now()
		turned := s.turned(now)
		if turned && next == nil && len(s.flight) == 0 {
			return errTurned
		}
		if next == nil && !turned && s.provisionalEvery > 0 && !now.Before(nextProv) {
			next = s.provisional()
			nextProv = now.Add(s.provisionalEvery)
		}
		if next == nil && !turned && !now.Before(s.retryAt) && !now.Before(spoolFail) {
			var err error
			if next, err = s.final(now); err != nil {
				s.u.metrics.spoolErrors.Inc()
				spoolFail = now.Add(spoolWait)
			}
		}
		if next == nil && !turned { // after all buckets that may go
			next = s.samples(now)
		}
		// Sleep until something may have to be done.
		wake := now.Add(answerWait)
		for _, t := range []time.Time{s.retryAt, spoolFail, s.turn} {
			if t.After(now) && t.Before(wake) {
				wake = t
			}
		}
		if s.provisionalEvery > 0 && !turned && nextProv.Before(wake) && next == nil {
			wake = nextProv
		}
		if s.tailing && !turned && s.nextTail.Before(wake) && next == nil {
			wake = s.nextTail
		}
		if oldest, ok := s.oldest(); ok {
			if now.Sub(oldest) >= answerWait {
				return fmt.Errorf("a bucket is unanswered for %s", answerWait)
			}
			if t := oldest.Add(answerWait); t.Before(wake) {
				wake = t
			}
		}
		timer.Reset(time.Until(wake))
		var offer chan<- *httpctlv1.DeliverRequest
		if next != nil {
			offer = out
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return err
		case offer <- next:
			next = nil
		case m := <-in:
			s.message(m)
		case <-s.u.deps.Queue.Ready():
			spoolFail = time.Time{} // what is new is at hand, whatever ails the file
		case <-last: // the pause was drawn for an aggregator that has time to recover
			last, s.retryAt = nil, time.Time{}
		case <-timer.C:
		}
	}
}

func (s *session) oldest() (t time.Time, ok bool) {
	for _, f := range s.flight {
		if !ok || f.sent.Before(t) {
			t, ok = f.sent, true
		}
	}
	return t, ok
}

// final takes the next final bucket from the spool into the window, or returns nil if the
// window is full or nothing waits.
func (s *session) final(now time.Time) (*httpctlv1.DeliverRequest, error) {
	limit := window
	if s.u.single {
		limit = 1
	}
	if s.full(limit) {
		return nil, nil
	}
	for {
		seq, data, ahead, err := s.next()
		if seq == 0 {
			if err == nil && len(s.flight) == 0 && s.cursor != 0 && s.u.deps.Queue.Len() > 0 {
				s.cursor = 0 // the spool was out of service for a while, and has older ones again
				s.split()
				continue
			}
			return nil, err
		}
		if s.seqs[seq] {
			continue
		}
		if older, changed := s.readable(data); changed {
			data = older
			// From now on it has these bytes, also after the aggregator is upgraded: it may have them then. If the file cannot be written, it is
			// better to deliver all the same.
			_ = s.u.deps.Queue.Replace(seq, data)
		}
		if most := s.u.config().MaxMessageSize; len(data) > int(most) {
			s.u.metrics.answers.WithLabelValues("too_large").Inc()
			s.u.log.Error("a bucket is larger than uplink.max_message_size; it is given up and its interval declared unobserved",
				"size_bytes", len(data), "max_bytes", int64(most))
			s.settle(nil, nil, []uint64{seq})
			continue
		}
		s.sequence++
		s.flight[s.sequence] = flying{seq: seq, size: len(data), sent: now}
		s.seqs[seq] = true
		s.bytes += len(data)
		s.u.metrics.sent.Inc()
		s.u.metrics.sentBytes.Add(float64(len(data)))
		s.u.metrics.inFlight.Set(float64(len(s.flight)))
		return request(s.sequence, data, ahead), nil
	}
}

// readable returns a bucket as the aggregator can read it, and whether that is in another format: an older one does not know the newest.
func (s *session) readable(data []byte) (out []byte, changed bool) {
	older, err := bucket.ForVersion(data, s.format)
	if err != nil {
		return data, false // which the aggregator will refuse, and say why
	}
	return older, !bytes.Equal(older, data)
}

func request(sequence uint64, data []byte, ahead bool) *httpctlv1.DeliverRequest {
	return &httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Sequence: sequence, Data: data, Ahead: ahead}}}
}

// provisional returns the provisional bucket of now, or nil.
func (s *session) provisional() *httpctlv1.DeliverRequest {
	if s.u.deps.Provisional == nil || s.u.single {
		return nil
	}
	b := s.u.deps.Provisional(s.provisionalRows)
	if b == nil || b.Final {
		return nil
	}
	data, err := bucket.Encode(nil, b)
	if err != nil || len(data) > maxProvisional {
		return nil // an error: its final bucket will meet the same one, where it counts
	}
	data, _ = s.readable(data)
	s.sequence++
	s.u.metrics.provisional.Inc()
	s.u.metrics.sentBytes.Add(float64(len(data)))
	return request(s.sequence, data, false)
}

// message takes what the aggregator sent. What a newer one may send besides is passed over.
func (s *session) message(m *httpctlv1.DeliverResponse) {
	switch m := m.GetMessage().(type) {
	case *httpctlv1.DeliverResponse_Ack:
		s.ack(m.Ack)
	case *httpctlv1.DeliverResponse_Fleet:
		s.fleet(m.Fleet)
	case *httpctlv1.DeliverResponse_Settings:
		s.settings(m.Settings)
	case *httpctlv1.DeliverResponse_Tails:
		s.tails(m.Tails)
	}
}

func (s *session) ack(m *httpctlv1.Ack) {
	var stored, expired, refused, future []uint64
	retry, why, tooNew := false, "", "" // the reasons of the last that is of the future, or too new
	for _, r := range m.GetResults() {
		f, ok := s.flight[r.GetSequence()]
		if !ok {
			continue // of a provisional bucket, or not ours
		}
		delete(s.flight, r.GetSequence())
		delete(s.seqs, f.seq)
		s.bytes -= f.size
		result := "retry"
		switch r.GetStatus() {
		case httpctlv1.BucketStatus_BUCKET_STATUS_STORED:
			stored, result = append(stored, f.seq), "stored"
		case httpctlv1.BucketStatus_BUCKET_STATUS_DUPLICATE:
			stored, result = append(stored, f.seq), "duplicate"
		case httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED:
			expired, result = append(expired, f.seq), "expired"
		case httpctlv1.BucketStatus_BUCKET_STATUS_REFUSED:
			refused, result = append(refused, f.seq), "refused"
			s.u.log.Error("the aggregator refused a bucket; its interval is declared unobserved", "reason", security.CleanText(r.GetReason()))
		case httpctlv1.BucketStatus_BUCKET_STATUS_FUTURE:
			result, why = "future", r.GetReason()
			if s.future(f.seq) {
				future = append(future, f.seq)
				break
			}
			retry = true
			s.cursor = min(s.cursor, f.seq-1)
		case httpctlv1.BucketStatus_BUCKET_STATUS_TOO_NEW:
			result, tooNew, retry = "too_new", r.GetReason(), true
			s.cursor = min(s.cursor, f.seq-1)
		default: // RETRY, and what this agent does not know: keeping the bucket is always right
			retry = true
			s.cursor = min(s.cursor, f.seq-1)
		}
		s.u.metrics.answers.WithLabelValues(result).Inc()
	}
	if len(future) > 0 {
		s.u.log.Error("buckets are dated in the future, of a clock that was wrong and is set right now; the aggregator does not store them, and their intervals are declared unobserved",
			"buckets", len(future), "reason", security.CleanText(why))
		refused = append(refused, future...)
	}
	if why != "" && retry && !s.apart {
		s.apart = true
		s.u.log.Error("the aggregator stores no bucket that is dated so far in the future: the clock of this host is wrong, or its own; buckets are kept while the spool has room", "reason", security.CleanText(why))
	}
	if tooNew != "" && !s.older {
		s.older = true
		s.u.log.Error("the aggregator is older than this agent and stores no bucket with the statistics of this version: upgrade it; buckets are kept for a day, while the spool has room",
			"reason", security.CleanText(tooNew))
	}
	if len(stored)+len(expired)+len(refused) > 0 {
		s.settle(stored, expired, refused)
		s.u.single = false
		s.retries = 0
	}
	if retry {
		s.split()
		pause := s.u.pause(s.retries)
		select {
		case <-s.u.last:
			pause = min(pause, lastPause)
		default:
		}
		s.retryAt = time.Now().Add(pause)
		s.retries++
	}
	s.u.metrics.inFlight.Set(float64(len(s.flight)))
}

// maxAhead is how far ahead of the clock a bucket is not of the future.
const maxAhead = 5 * time.Minute

// future reports whether a bucket of the spool is of the future by this host's clock, too: then the clock that dated it
// was wrong, whatever the aggregator's is.
func (s *session) future(seq uint64) bool {
	found, data, err := s.u.deps.Queue.Next(seq - 1)
	if err != nil || found != seq {
		return false
	}
	h, err := bucket.DecodeHeader(data)
	return err == nil && h.Start > time.Now().Add(maxAhead).UnixNano()
}

// settle tells the spool. If it cannot note it now, it does later, and does not offer these
// buckets again until the agent restarts.
func (s *session) settle(stored, expired, refused []uint64) {
	if err := s.u.deps.Queue.Settle(stored, expired, refused); err != nil {
		s.u.metrics.spoolErrors.Inc()
	}
}

// suspect is called when the aggregator ended the stream over a bucket that is larger than it
// takes. If just one was under way it is that one, and it is given up; else the next session
// sends one at a time to find it.
func (s *session) suspect() {
	if s.u.single && len(s.flight) == 1 {
		for _, f := range s.flight {
			s.u.metrics.answers.WithLabelValues("too_large").Inc()
			s.u.log.Error("a bucket is larger than the aggregator takes (its ingest.max_message_size); it is given up and its interval declared unobserved",
				"size_bytes", f.size)
			s.settle(nil, nil, []uint64{f.seq})
		}
		s.u.single = false
		return
	}
	s.u.single = true
}

func (s *session) settings(m *httpctlv1.Settings) {
	if m == nil {
		return
	}
	s.provisionalEvery = 0
	if m.GetWatched() {
		// At least so far apart, whatever the aggregator asks for.
		s.provisionalEvery = max(200*time.Millisecond, time.Duration(m.GetProvisionalEveryNs()))
		s.provisionalRows = int(min(m.GetProvisionalRows(), 10_000))
	}
	if s.u.deps.OnSettings == nil {
		return
	}
	settings := Settings{
		IntervalWidth: time.Duration(m.GetIntervalWidthNs()),
		NextWidth:     time.Duration(m.GetNextIntervalWidthNs()),
		NextFrom:      m.GetNextFromUnixNs(),
	}
	s.u.deps.OnSettings(settings)
}

// fleet hands over which hosts are monitored; of an older aggregator, none.
func (s *session) fleet(m *httpctlv1.Fleet) {
	if s.u.deps.OnFleet == nil || m == nil {
		return
	}
	hosts := make(map[bucket.ID][]netip.Addr, len(m.GetHosts()))
	for _, h := range m.GetHosts() {
		var id bucket.ID
		if len(h.GetHostId()) != len(id) {
			continue
		}
		copy(id[:], h.GetHostId())
		for _, a := range h.GetAddresses() {
			if addr, ok := netip.AddrFromSlice(a); ok {
				hosts[id] = append(hosts[id], addr)
			}
		}
	}
	s.u.deps.OnFleet(hosts)
}

func containsFold(s, part string) bool { return strings.Contains(strings.ToLower(s), part) }
