package web

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/lifecycle"
	"github.com/httpctl/httpctl/pkg/security"
)

const (
	// headerWait bounds the time until a request has come, handshake included.
	headerWait = 10 * time.Second
	// idleWait is how long a connection may rest between two requests.
	idleWait = time.Minute
	// answerWait bounds a question: longer than people wait, as an hour of a large fleet on a busy host takes seconds.
	answerWait = 30 * time.Second
	// writeWait bounds the sending of an answer after it was made, or of one event of a stream.
	writeWait = 20 * time.Second
	// maxHeader bounds the head of a request, in bytes; the longest question has some thousand.
	maxHeader = 16 << 10
	// maxConnections bounds the connections of all addresses; each costs some 20 KB.
	maxConnections = 512
	// maxAnswers bounds the questions under way besides streams. The query service answers a few at a time; the others wait.
	maxAnswers = 64
	// maxAnswersOfOne bounds those from one address.
	maxAnswersOfOne = 16
	// maxMaking bounds how many answers are made at once, streams' pictures included: that of a large fleet takes 100 MB.
	maxMaking = 4
	// graceWait is how long answers that are under way may take when the aggregator stops.
	graceWait = 3 * time.Second
)

// Deps are what a Server needs from outside. All but Log, Registry and TLS must be set.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	// Service answers the questions.
	Service ask.Service
	// Now is time.Now but in tests.
	Now func() time.Time
	// Changes counts what changes answers: where it has not moved there is nothing new to ask for.
	Changes func() uint64
	// Interval returns the width of an interval.
	Interval func() time.Duration
	// Admit lets a question through or refuses it, as a call of the gRPC method of that full name. state is nil in
	// plain text. leave must be called when the answer was given; the context ends when the right to it does.
	Admit func(ctx context.Context, conn net.Conn, state *tls.ConnectionState, method string) (_ context.Context, leave func(), err error)
	// Still returns an error once a question that was let through would be refused; it may be nil.
	Still func(ctx context.Context, method string) error
	// Guard bounds what strangers cost on a listener; Greeted tells it of a connection that has sent a request.
	Guard   func(l net.Listener, plain bool) net.Listener
	Greeted func(conn net.Conn, trusted bool)
	// TLS is used on every address; nil is plain text, for loopback only.
	TLS *tls.Config
}

// Server serves the page and the API. It is safe for concurrent use.
type Server struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	reader  ask.Reader
	metrics *metrics
	assets  map[string]*asset
	openapi []byte
	hosts   map[string]struct{}
	leaf    atomic.Pointer[x509.Certificate] // shown to whoever came last
	making  chan struct{}                    // a token for each answer that is made
	streams *streams
	run     string // names this run in the ids of events

	mu          sync.Mutex
	group       *lifecycle.Group // nil before Start
	servers     []*http.Server
	addresses   []string
	connections int
	asking      int            // questions under way
	askingFrom  map[string]int // by address
}

// New returns a Server that is not running. cfg must be valid.
func New(cfg Config, deps Deps) (*Server, error) {
	if deps.Service == nil || deps.Now == nil || deps.Changes == nil || deps.Interval == nil || deps.Admit == nil || deps.Guard == nil || deps.Greeted == nil {
		return nil, errors.New("web server: everything but log, registry and TLS must be given")
	}
	s := &Server{cfg: cfg, deps: deps, log: deps.Log, reader: ask.Reader{Service: deps.Service}, metrics: newMetrics(deps.Registry),
		hosts: map[string]struct{}{}, making: make(chan struct{}, maxMaking), askingFrom: map[string]int{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, h := range cfg.Hosts {
		s.hosts[strings.ToLower(h)] = struct{}{}
	}
	var err error
	if s.assets, err = readAssets(embedded); err != nil {
		return nil, err
	}
	if s.openapi, err = document(); err != nil {
		return nil, err
	}
	var run [6]byte
	_, _ = rand.Read(run[:]) // never fails
	s.run = hex.EncodeToString(run[:])
	s.streams = newStreams(s)
	return s, nil
}

// Start listens and serves until Stop. ctx bounds the opening only.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group != nil {
		return errors.New("the web server is running")
	}
	own := context.WithoutCancel(ctx)
	s.group = lifecycle.NewGroup(own)
	for _, address := range s.cfg.Listen {
		l, err := security.Listen(ctx, address)
		if err != nil && s.cfg.Optional {
			s.log.Warn("the web page is not served", "address", address, "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("aggregator.web.listen: %w", err)
		}
		server := s.newServer()
		s.servers = append(s.servers, server)
		s.addresses = append(s.addresses, l.Addr().String())
		guarded := &bounded{Listener: s.deps.Guard(l, s.deps.TLS == nil), s: s}
		s.group.Go("serve web page "+address, func(context.Context) error {
			var err error
			if s.deps.TLS != nil {
				err = server.ServeTLS(guarded, "", "")
			} else {
				err = server.Serve(guarded)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		})
		s.log.Info("serving the web page", "address", l.Addr().String(), "tls", s.deps.TLS != nil)
	}
	return nil
}

// Failed gives the error by which serving ended unasked. Call it after Start.
func (s *Server) Failed() <-chan error { return s.group.Failed() }

// URLs returns where the page is, one for each address. Call it after Start.
func (s *Server) URLs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	scheme := "http"
	if s.deps.TLS != nil {
		scheme = "https"
	}
	var out []string
	for _, a := range s.addresses {
		out = append(out, scheme+"://"+a+"/")
	}
	return out
}

// Stop ends streams at once, lets answers under way come to their end for a moment, and returns when
// nothing runs any more. It is idempotent, and safe before Start.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	servers, group := s.servers, s.group
	s.mu.Unlock()
	s.streams.stop()
	grace, cancel := context.WithTimeout(ctx, graceWait)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(grace); err != nil {
			_ = server.Close() // what is still there has had its time
		}
	}
	return errors.Join(s.streams.wait(ctx), group.Stop(ctx))
}

func (s *Server) newServer() *http.Server {
	server := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		ReadHeaderTimeout: headerWait, ReadTimeout: headerWait, IdleTimeout: idleWait, WriteTimeout: answerWait + writeWait,
		MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 64},
		// What strangers do wrong is counted at the door; what goes wrong here is logged by handle.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state != http.StateActive {
				return
			}
			t, secure := c.(*tls.Conn)
			s.deps.Greeted(c, secure && len(t.ConnectionState().VerifiedChains) > 0)
		},
	}
	if s.deps.TLS != nil {
		server.TLSConfig = s.remember(s.deps.TLS)
	}
	return server
}

type connKey struct{}

// remember notes which certificate is shown, as its names are those under which this server is reached. Who shows
// none is let in as far as the door, where Admit refuses it: a browser tells nobody why a handshake failed.
func (s *Server) remember(config *tls.Config) *tls.Config {
	config = config.Clone()
	choose := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := config
		if choose != nil {
			var err error
			if c, err = choose(hello); err != nil {
				return nil, err
			}
		}
		if c != nil && len(c.Certificates) > 0 && c.Certificates[0].Leaf != nil {
			s.leaf.Store(c.Certificates[0].Leaf)
		}
		if c != nil && c.ClientAuth == tls.RequireAndVerifyClientCert {
			c = c.Clone() // it may be that of other connections
			c.ClientAuth = tls.VerifyClientCertIfGiven
			c.SessionTicketsDisabled = true // a session of before would not be asked for its certificate again
		}
		return c, nil
	}
	return config
}

// bounded is a listener of a server that has a bounded number of connections. What is beyond it is closed at once.
type bounded struct {
	net.Listener
	s *Server
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		b.s.mu.Lock()
		full := b.s.connections >= maxConnections
		if !full {
			b.s.connections++
		}
		b.s.mu.Unlock()
		if full {
			b.s.metrics.refused.WithLabelValues(tooManyConnections).Inc()
			_ = conn.Close() // nothing was sent
			continue
		}
		return &counted{Conn: conn, s: b.s}, nil
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	s    *Server
	once sync.Once
}

// NetConn returns what was accepted.
func (c *counted) NetConn() net.Conn { return c.Conn }

func (c *counted) Close() error {
	c.once.Do(func() {
		c.s.mu.Lock()
		c.s.connections--
		c.s.mu.Unlock()
	})
	return c.Conn.Close()
}

// policy is the Content-Security-Policy: scripts, styles and images of this server's files alone, questions to it
// alone, no frames, no forms, nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'"

// handle answers one request.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	watched := &watched{ResponseWriter: w}
	defer func() {
		if x := recover(); x != nil {
			f := s.panicked(r.URL.Path, x)
			if watched.code == 0 {
				f.write(watched)
			}
		}
		s.metrics.requests.WithLabelValues(class(watched.code)).Inc()
	}()
	h := watched.Header()
	for name, value := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Vary": "Accept-Encoding",
	} {
		h.Set(name, value)
	}
	if err := s.serve(watched, r); err != nil {
		f := failureOf(err)
		if f.code == http.StatusMethodNotAllowed {
			h.Set("Allow", "GET, HEAD")
		}
		if wantsPage(r) {
			f.writePage(watched, r)
			return
		}
		f.write(watched)
	}
}

// panicked logs a fault of this program, and returns what who asked is told.
func (s *Server) panicked(path string, x any) *failure {
	s.log.Error("answering a request of the web page failed", "path", security.CleanText(path), "panic", fmt.Sprint(x), "stack", string(debug.Stack()))
	return fail(http.StatusInternalServerError, "", "please report it, with what the aggregator has logged", "the aggregator failed to answer")
}

// serve answers a request, or returns why not.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	api := strings.HasPrefix(r.URL.Path, "/api/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return fail(http.StatusMethodNotAllowed, "", "what changes something is done with httpctl", "there is only GET: nothing here changes anything")
	case !s.knows(r):
		s.metrics.refused.WithLabelValues(unknownHost).Inc()
		return fail(http.StatusForbidden, "", "call it by an address, or add the name to the aggregator's setting aggregator.web.hosts", "this aggregator is not known as %q", r.Host)
	case api && !ownSite(r):
		s.metrics.refused.WithLabelValues(otherSite).Inc()
		return fail(http.StatusForbidden, "", "open the address itself", "a page of another site asks")
	}
	e := endpoints[r.URL.Path]
	method := methodAny
	if e != nil {
		method = e.method
	}
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if conn == nil {
		return errors.New("a request without a connection")
	}
	ctx, leave, err := s.deps.Admit(r.Context(), conn, r.TLS, methodPrefix+method)
	if err != nil {
		// With another connection the browser shows the certificate that it has now.
		w.Header().Set("Connection", "close")
		return err
	}
	defer leave()
	r = r.WithContext(ctx)
	if e != nil {
		return s.answer(w, r, e)
	}
	a := s.assets[r.URL.Path]
	if a == nil || api {
		return fail(http.StatusNotFound, "", "see /api/v1/openapi.json", "there is nothing at %s", r.URL.Path)
	}
	a.serve(w, r)
	return nil
}

// watched notes the code of an answer.
type watched struct {
	http.ResponseWriter
	code int
}

func (w *watched) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *watched) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func class(code int) string {
	if code == 0 {
		code = http.StatusOK
	}
	return fmt.Sprintf("%dxx", code/100)
}
