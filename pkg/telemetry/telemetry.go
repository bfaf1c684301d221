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
	Path     string
	Gatherer prometheus.Gatherer
}

// Serve opens address and serves until Stop.
func Serve(ctx context.Context, address string, g prometheus.Gatherer, health Health, more ...Metrics) (*Page, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics page: %w", err)
	}
	mux := http.NewServeMux()
	for _, m := range append(more, Metrics{"/metrics", g}) {
		mux.Handle("GET "+m.Path, promhttp.HandlerFor(m.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
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
