// Command collector is an OpenTelemetry Collector for the tests, put together from its own components: the receiver of OTLP, over gRPC and HTTP,
// and the limiter of memory. What comes is written to a file as it is, and served as a page for Prometheus, under the names that
// Prometheus's translator of OTLP gives.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/memorylimiterprocessor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.uber.org/zap"
)

type config struct {
	grpc, http, page, record, cert, key string
	limit                               int
}

func main() {
	var cfg config
	flag.StringVar(&cfg.grpc, "grpc", "", "address for OTLP over gRPC")
	flag.StringVar(&cfg.http, "http", "", "address for OTLP over HTTP")
	flag.StringVar(&cfg.page, "page", "", "address of the page for Prometheus, /metrics")
	flag.StringVar(&cfg.record, "record", "", "file that gets each request as OTLP's JSON, one a line, after what is there")
	flag.StringVar(&cfg.cert, "cert", "", "certificate, if it is to be TLS")
	flag.StringVar(&cfg.key, "key", "", "its key")
	flag.IntVar(&cfg.limit, "limit", 1000, "memory in MiB above which it refuses what comes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

// host has no extensions.
type host struct{}

func (host) GetExtensions() map[component.ID]component.Component { return nil }

func run(ctx context.Context, cfg config) error {
	sink, err := newSink(cfg.record)
	if err != nil {
		return err
	}
	telemetry := componenttest.NewNopTelemetrySettings()
	if telemetry.Logger, err = zap.NewProduction(); err != nil {
		return err
	}
	limiters := memorylimiterprocessor.NewFactory()
	limits, err := settings(limiters, map[string]any{"check_interval": "50ms", "limit_mib": cfg.limit})
	if err != nil {
		return err
	}
	next, err := consumer.NewMetrics(sink.consume)
	if err != nil {
		return err
	}
	limiter, err := limiters.CreateMetrics(ctx, processor.Settings{ID: component.NewID(limiters.Type()), TelemetrySettings: telemetry}, limits, next)
	if err != nil {
		return err
	}
	protocol := func(address string) map[string]any {
		m := map[string]any{"endpoint": address}
		if cfg.cert != "" {
			m["tls"] = map[string]any{"cert_file": cfg.cert, "key_file": cfg.key}
		}
		return m
	}
	receivers := otlpreceiver.NewFactory()
	protocols, err := settings(receivers, map[string]any{"protocols": map[string]any{"grpc": protocol(cfg.grpc), "http": protocol(cfg.http)}})
	if err != nil {
		return err
	}
	otlp, err := receivers.CreateMetrics(ctx, receiver.Settings{ID: component.NewID(receivers.Type()), TelemetrySettings: telemetry}, protocols, limiter)
	if err != nil {
		return err
	}
	if err := errors.Join(limiter.Start(ctx, host{}), otlp.Start(ctx, host{})); err != nil {
		return err
	}
	page := &http.Server{Addr: cfg.page, Handler: sink, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- page.ListenAndServe() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	ending := context.WithoutCancel(ctx)
	return errors.Join(err, page.Close(), otlp.Shutdown(ending), limiter.Shutdown(ending), sink.file.Close())
}

// settings are a component's defaults and what a configuration file would say.
func settings(f component.Factory, said map[string]any) (component.Config, error) {
	cfg := f.CreateDefaultConfig()
	return cfg, confmap.NewFromStringMap(said).Unmarshal(cfg)
}
