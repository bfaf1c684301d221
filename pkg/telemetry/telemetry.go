// Package telemetry holds what the programs use to speak of themselves: the
// logger that the configuration asks for, and the page that Prometheus and
// probes read.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/httpctl/httpctl/pkg/config"
)

// NewLogger returns a logger to w as cfg says. cfg must be valid.
func NewLogger(cfg config.Log, w io.Writer) *slog.Logger {
	return newLogger(cfg, w, levelOf(cfg))
}

// NewLeveled is NewLogger for a level that can be changed later, by the function that it returns.
func NewLeveled(cfg config.Log, w io.Writer) (log *slog.Logger, set func(config.Log)) {
	level := new(slog.LevelVar)
	level.Set(levelOf(cfg))
	return newLogger(cfg, w, level), func(cfg config.Log) { level.Set(levelOf(cfg)) }
}

// MoreTalkative reports whether a lets messages pass that b does not.
func MoreTalkative(a, b config.Log) bool { return levelOf(a) < levelOf(b) }

func levelOf(cfg config.Log) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

func newLogger(cfg config.Log, w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// NewRegistry returns a registry with the collectors of the Go runtime and of
// the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Page serves a registry under /metrics, and how the program is under /healthz
// and /readyz.
type Page struct {
	address string
	server  *http.Server
	done    chan struct{}
}

// CheckAddress reports whether a metrics address can be served: it has no
// access control, so it must be loopback, or empty.
func CheckAddress(address string) error {
	if address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address, and the page has no access control; let Prometheus's agent on this host read it", address)
	}
	return nil
}

// Metrics are served for Prometheus besides those of the program, under a path of their own: what is scraped
// apart can be scraped at another rate, or not at all.
type Metrics struct {
	Path string
	// For gives what a request is answered with, and what to call once all of the answer is written; nil is nothing.
	For func(*http.Request) (g prometheus.Gatherer, taken func())
}

// What one page is bounded by: answers under way, each of which may be large, and the time for one.
const (
	maxAnswers = 4
	answerWait = 10 * time.Second
)

type takenKey struct{}

// handler answers maxAnswers requests at a time.
func (m Metrics) handler() http.Handler {
	limit := make(chan struct{}, maxAnswers)
	answer := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case limit <- struct{}{}:
			defer func() { <-limit }()
		default:
			http.Error(w, fmt.Sprintf("%d others are reading this page, try again later", maxAnswers), http.StatusServiceUnavailable)
			return
		}
		g, taken := m.For(r)
		promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		if taken != nil {
			r.Context().Value(takenKey{}).(*atomic.Pointer[func()]).Store(&taken)
		}
	}), answerWait, fmt.Sprintf("the page was not made within %v", answerWait))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var taken atomic.Pointer[func()]
		watched := &watchedWriter{ResponseWriter: w}
		answer.ServeHTTP(watched, r.WithContext(context.WithValue(r.Context(), takenKey{}, &taken)))
		if f := taken.Load(); f != nil && !watched.failed && r.Context().Err() == nil {
			(*f)()
		}
	})
}

// watchedWriter knows whether an answer is not, or not wholly, what was to be said.
type watchedWriter struct {
	http.ResponseWriter
	failed bool
}

func (w *watchedWriter) WriteHeader(status int) {
	w.failed = w.failed || status != http.StatusOK
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.failed = w.failed || err != nil
	return n, err
}

// Serve opens address and serves until Stop.
func Serve(ctx context.Context, address string, g prometheus.Gatherer, health Health, more ...Metrics) (*Page, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics page: %w", err)
	}
	mux := http.NewServeMux()
	for _, m := range append(more, Metrics{"/metrics", func(*http.Request) (prometheus.Gatherer, func()) { return g, nil }}) {
		mux.Handle("GET "+m.Path, m.handler())
	}
	mux.Handle("GET /healthz", answer(health.Live))
	mux.Handle("GET /readyz", answer(health.Ready))
	p := &Page{
		address: l.Addr().String(),
		server:  &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10},
		done:    make(chan struct{}),
	}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(l) // ErrServerClosed, once Stop is called
	}()
	return p, nil
}

// Addr returns the address that is served, with the port that port 0 became.
func (p *Page) Addr() string { return p.address }

// Stop closes the page and waits for requests under way.
func (p *Page) Stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	err := p.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = p.server.Close()
	}
	<-p.done
	return err
}
