package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httpctl/httpctl/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testSettings() config.Settings {
	s := config.DefaultSettings()
	s.DashboardBucketSize, s.AverageBucketSize = time.Second, 10*time.Second
	return s
}

func stop(t *testing.T, a *App) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := a.Stop(ctx); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func startApp(t *testing.T, cfg Config) *App {
	t.Helper()
	a, err := Start(t.Context(), testSettings(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a) })
	return a
}

// TestStartFails: whatever is in the way is told, and nothing is left running
// (TestMain) or lying about.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		change func(t *testing.T, c *Config)
		want   string
	}{
		"port taken":         {func(_ *testing.T, c *Config) { c.Listen = []string{taken.Addr().String()} }, "address already in use"},
		"metrics port taken": {func(_ *testing.T, c *Config) { c.Metrics = taken.Addr().String() }, "metrics page"},
		"directory is a file": {func(t *testing.T, c *Config) {
			c.Data += "/file"
			if err := os.WriteFile(c.Data, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "data directory"},
		"in use": {func(t *testing.T, c *Config) { startApp(t, *c) }, "httpctl.db"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Data: t.TempDir(), Ingest: DefaultConfig().Ingest}
			c.change(t, &cfg)
			a, err := Start(t.Context(), testSettings(), cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				stop(t, a)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if name == "in use" {
				return // the other one's socket
			}
			if _, err := os.Stat(config.SocketPath(cfg.Data)); !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "not a directory") {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}

// TestStopRemovesTheSocket, and the same directory serves again.
func TestStopRemovesTheSocket(t *testing.T) {
	cfg := Config{Data: t.TempDir(), Ingest: DefaultConfig().Ingest}
	for range 2 {
		a, err := Start(t.Context(), testSettings(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(config.SocketPath(cfg.Data)); err != nil || fi.Mode().Perm() != 0o660 {
			t.Errorf("socket %v, %v, want mode 0660", fi, err)
		}
		stop(t, a)
		if _, err := os.Stat(config.SocketPath(cfg.Data)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
}

// TestFailureIsTold: a part that dies ends the daemon, also when it died before
// anyone asked.
func TestFailureIsTold(t *testing.T) {
	for range 8 { // a lost race would lose one in two
		a := startApp(t, Config{Data: t.TempDir(), Ingest: DefaultConfig().Ingest})
		a.servers.Go("test", func(context.Context) error { return errors.New("it broke") })
		<-a.servers.Context().Done()
		if err := <-a.Failed(); err == nil || !strings.Contains(err.Error(), "it broke") {
			t.Errorf("Failed() gave %v", err)
		}
	}
}

func TestValidate(t *testing.T) {
	c := Config{Listen: []string{"192.0.2.1:7420"}, Metrics: "0.0.0.0:1"}
	err := c.Validate()
	for _, want := range []string{"data", "listen", "ingest", "metrics"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want a fault of %s", err, want)
		}
	}
	if c := DefaultConfig(); c.Validate() != nil {
		t.Errorf("DefaultConfig().Validate() = %v", c.Validate())
	}
}
