package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/httpctl/httpctl/pkg/config"
)

func TestNewLogger(t *testing.T) {
	for _, c := range []struct {
		level, format string
		want          string
	}{
		{"info", "text", "level=INFO msg=shown n=1\n"},
		{"info", "json", `"level":"INFO","msg":"shown","n":1}` + "\n"},
		{"error", "text", ""},
	} {
		var out bytes.Buffer
		log := NewLogger(config.Log{Level: c.level, Format: c.format}, &out)
		log.Debug("hidden")
		log.Info("shown", "n", 1)
		if got := out.String(); !strings.HasSuffix(got, c.want) || c.want == "" && got != "" || strings.Contains(got, "hidden") {
			t.Errorf("logger of level %s, format %s wrote %q, want %q at the end", c.level, c.format, got, c.want)
		}
	}
	var _ slog.Handler = NewLogger(config.DefaultLog(), io.Discard).Handler()
}

func TestCheckAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "127.0.0.1:7421": true, "[::1]:7421": true, "localhost:0": true,
		"0.0.0.0:7421": false, ":7421": false, "192.0.2.1:7421": false, "example.org:7421": false, "7421": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("CheckAddress(%q) = %v, want an error: %v", address, err, !ok)
		}
	}
}

func TestPage(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if _, err := Serve(context.Background(), address, NewRegistry(), Health{}); err == nil {
		t.Fatal("Serve on an address in use succeeded")
	}
	l.Close()

	registry := NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpctl_test", Help: "h"}, func() float64 { return 17 }))
	page, err := Serve(context.Background(), address, registry, Health{})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{"\nhttpctl_test 17\n", "\ngo_goroutines ", "\nprocess_resident_memory_bytes "} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if resp, err = client.Get("http://" + address + "/"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET / = %v, %v, want 404", resp, err)
	} else {
		resp.Body.Close()
	}
	if err := page.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	if err := (*Page)(nil).Stop(context.Background()); err != nil {
		t.Errorf("Stop of no page = %v", err)
	}
}

func TestVersion(t *testing.T) {
	if v := Version(); v == "" {
		t.Error("Version() is empty")
	}
}
