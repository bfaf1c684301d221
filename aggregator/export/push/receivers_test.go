package push

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/httpctl/httpctl/aggregator/export"
	"github.com/httpctl/httpctl/pkg/testkit"
)

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newPusher(t *testing.T, to string, cfg export.Receiver) *Pusher {
	t.Helper()
	p, err := New(cfg, Deps{To: to, Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()), Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.sender.close)
	return p
}

// served is a request as a server got it.
type served struct {
	path   string
	header http.Header
	body   string
}

// TestHTTP sends to a server with TLS that only ca_file knows, and shows it what the files hold.
func TestHTTP(t *testing.T) {
	var got served
	answer := func(w http.ResponseWriter) {}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(body)
		}
		text, _ := io.ReadAll(body)
		got = served{r.URL.Path, r.Header, string(text)}
		answer(w)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	password := file(t, "password", "s3cret\n")
	cfg := export.Receiver{URL: server.URL + "/api/v1/write", CAFile: ca, Username: "me", PasswordFile: password}
	p := newPusher(t, export.ToRemoteWrite, cfg)
	send := func(p *Pusher, body string) (int, string, error) {
		t.Helper()
		return p.sender.send(t.Context(), []byte(body))
	}
	if _, _, err := send(p, "one"); err != nil {
		t.Fatal(err)
	}
	h := got.header
	want(t, "remote write", []string{got.path, got.body, h.Get("Authorization"), h.Get("Content-Encoding"), h.Get("Content-Type"), h.Get("X-Prometheus-Remote-Write-Version"), h.Get("User-Agent")},
		[]string{"/api/v1/write", "one", "Basic bWU6czNjcmV0", "snappy", "application/x-protobuf", "0.1.0", "httpctl/1"})
	// A renewed password is shown from the next request on.
	if err := os.WriteFile(password, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := send(p, "two"); err != nil {
		t.Fatal(err)
	}
	want(t, "the renewed password", got.header.Get("Authorization"), "Basic bWU6b3RoZXI=")
	want(t, "an answer that says what it was shown", p.sender.hide("Basic bWU6b3RoZXI= is me:other"), "Basic (hidden) is me:(hidden)")

	// What answers mean.
	for _, c := range []struct {
		status int
		header string
		final  bool
		after  time.Duration
	}{
		{400, "", true, 0}, {401, "", false, 0}, {404, "", false, 0}, {429, "7", false, 7 * time.Second}, {413, "", true, 0},
		{500, "", false, 0}, {503, "soon", false, 0}, {302, "", false, 0},
	} {
		answer = func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", c.header)
			w.Header().Set("Location", "http://192.0.2.1/") // where credentials must not go
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, "because")
		}
		_, _, err := send(p, "three")
		var f *failure
		if !errors.As(err, &f) || f.final != c.final || f.after != c.after || !strings.Contains(err.Error(), "because") {
			t.Errorf("status %d: %v, %+v, want final %v after %v, with the reason", c.status, err, f, c.final, c.after)
		}
	}

	// OTLP over HTTP.
	token := file(t, "token", "t0ken\n")
	p = newPusher(t, export.ToOTLP, export.Receiver{URL: server.URL, CAFile: ca, BearerTokenFile: token})
	answer = func(w http.ResponseWriter) {
		body, _ := proto.Marshal(&metricsservice.ExportMetricsServiceResponse{PartialSuccess: &metricsservice.ExportMetricsPartialSuccess{RejectedDataPoints: 3, ErrorMessage: "too old"}})
		_, _ = w.Write(body)
	}
	refused, why, err := send(p, "four")
	want(t, "OTLP", []any{refused, why, err, got.path, got.body, got.header.Get("Authorization"), got.header.Get("Content-Encoding")}, []any{3, "too old", nil, "/v1/metrics", "four", "Bearer t0ken", "gzip"})
	answer = func(w http.ResponseWriter) {
		body, _ := proto.Marshal(status.New(codes.InvalidArgument, "no such thing").Proto())
		w.WriteHeader(400)
		_, _ = w.Write(body)
	}
	if _, _, err := send(p, "five"); err == nil || !strings.HasSuffix(err.Error(), "400 Bad Request: no such thing") {
		t.Errorf("OTLP: %v, want what the status says", err)
	}
	for code, final := range map[int]bool{500: true, 501: true, 502: false, 503: false, 504: false, 429: false, 404: false} {
		answer = func(w http.ResponseWriter) { w.WriteHeader(code) }
		var f *failure
		if _, _, err := send(p, "again"); !errors.As(err, &f) || f.final != final {
			t.Errorf("OTLP: status %d: %v, want final %v", code, err, final)
		}
	}

	// Without its authority nothing is sent; files that are not there are told at the start.
	p = newPusher(t, export.ToRemoteWrite, export.Receiver{URL: server.URL})
	if _, _, err := send(p, "six"); err == nil || got.body == "six" || strings.Contains(err.Error(), server.URL) {
		t.Errorf("a certificate of an unknown authority: %v, want an error without the address", err)
	}
	for key, cfg := range map[string]export.Receiver{
		"ca_file":           {URL: server.URL, CAFile: "/nowhere"},
		"bearer_token_file": {URL: server.URL, BearerTokenFile: file(t, "empty", "\n")},
		"password_file":     {URL: server.URL, Username: "me", PasswordFile: file(t, "lines", "a\nb")},
	} {
		if _, err := New(cfg, Deps{To: export.ToOTLP}); err == nil || !strings.Contains(err.Error(), "aggregator.export.otlp: "+key) {
			t.Errorf("New = %v, want the fault of %s", err, key)
		}
	}
}

// collector is a MetricsService of OTLP, as a collector has it.
type collector struct {
	metricsservice.UnimplementedMetricsServiceServer
	mu     sync.Mutex
	got    *metricsservice.ExportMetricsServiceRequest
	shown  []string
	answer func() (*metricsservice.ExportMetricsServiceResponse, error)
}

func (c *collector) Export(ctx context.Context, r *metricsservice.ExportMetricsServiceRequest) (*metricsservice.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, _ := metadata.FromIncomingContext(ctx)
	c.got, c.shown = r, m.Get("authorization")
	return c.answer()
}

// TestGRPC sends to a service with TLS.
func TestGRPC(t *testing.T) {
	certs := testkit.Certificates(t, map[string]netip.Addr{"collector": netip.MustParseAddr("127.0.0.1")})
	creds, err := credentials.NewServerTLSFromFile(certs+"/collector.pem", certs+"/collector.key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{answer: func() (*metricsservice.ExportMetricsServiceResponse, error) {
		return &metricsservice.ExportMetricsServiceResponse{}, nil
	}}
	server := grpc.NewServer(grpc.Creds(creds))
	metricsservice.RegisterMetricsServiceServer(server, c)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); running.Wait() })

	p := newPusher(t, export.ToOTLP, export.Receiver{URL: "grpcs://" + l.Addr().String(), CAFile: certs + "/ca.pem", BearerTokenFile: file(t, "token", "t0ken")})
	family := export.Family{Description: export.Descriptions[2], Points: []export.Point{{Attributes: []export.Attribute{{Key: "server.address", Value: "example.org"}}, Start: time.Unix(1, 0), Value: 5}}}
	message := export.OTLP([]export.Family{family}, time.Unix(2, 0), "here", "1")[0].Body
	if _, _, err := p.sender.send(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	points := c.got.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()[0].GetSum().GetDataPoints()
	want(t, "what came", []any{c.shown, len(points), points[0].GetAsInt(), points[0].GetStartTimeUnixNano(), points[0].GetTimeUnixNano()}, []any{[]string{"Bearer t0ken"}, 1, 5, uint64(1e9), uint64(2e9)})

	c.answer = func() (*metricsservice.ExportMetricsServiceResponse, error) {
		return &metricsservice.ExportMetricsServiceResponse{PartialSuccess: &metricsservice.ExportMetricsPartialSuccess{RejectedDataPoints: 1, ErrorMessage: "unknown"}}, nil
	}
	refused, why, err := p.sender.send(t.Context(), message)
	want(t, "partial success", []any{refused, why, err}, []any{1, "unknown", nil})
	for code, final := range map[codes.Code]bool{codes.InvalidArgument: true, codes.Internal: true, codes.Unavailable: false, codes.ResourceExhausted: true, codes.Unauthenticated: false} {
		c.answer = func() (*metricsservice.ExportMetricsServiceResponse, error) {
			return nil, status.Error(code, "because")
		}
		_, _, err := p.sender.send(t.Context(), message)
		var f *failure
		if !errors.As(err, &f) || f.final != final {
			t.Errorf("code %v: %v, want final %v", code, err, final)
		}
	}
	c.answer = func() (*metricsservice.ExportMetricsServiceResponse, error) {
		delay, err := proto.Marshal(durationpb.New(2500 * time.Millisecond))
		if err != nil {
			t.Error(err)
		}
		s := status.New(codes.ResourceExhausted, "busy").Proto()
		s.Details = append(s.Details, &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: append([]byte{1<<3 | 2, byte(len(delay))}, delay...)})
		return nil, status.FromProto(s).Err()
	}
	var f *failure
	if _, _, err := p.sender.send(t.Context(), message); !errors.As(err, &f) || f.final || f.after != 2500*time.Millisecond {
		t.Errorf("RetryInfo: %v, %+v, want to be tried again after 2.5 s", err, f)
	}
	p = newPusher(t, export.ToOTLP, export.Receiver{URL: "grpcs://" + l.Addr().String()})
	if _, _, err := p.sender.send(t.Context(), message); status.Code(errors.Unwrap(err)) != codes.Unavailable {
		t.Errorf("a certificate of an unknown authority: %v, want Unavailable", err)
	}
}
