package access

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// faulty panics at each call but one of status.
type faulty struct {
	httpctlv1.UnimplementedQueryServiceServer
	httpctlv1.UnimplementedIngestServiceServer
}

func (faulty) GetStatus(context.Context, *httpctlv1.GetStatusRequest) (*httpctlv1.GetStatusResponse, error) {
	return &httpctlv1.GetStatusResponse{}, nil
}

func (faulty) GetTop(context.Context, *httpctlv1.GetTopRequest) (*httpctlv1.GetTopResponse, error) {
	panic("top as a test wants")
}

func (faulty) Deliver(grpc.BidiStreamingServer[httpctlv1.DeliverRequest, httpctlv1.DeliverResponse]) error {
	panic("stream as a test wants")
}

// TestFaultCostsItsCall: a fault of this program ends the call that it is met in, and no other; it is logged once an hour, and counted.
func TestFaultCostsItsCall(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	g := New(Roles{}, Deps{Registry: registry, Log: slog.New(slog.NewTextHandler(&log, nil))})
	server := grpc.NewServer(append(g.ServerOptions(), grpc.Creds(Local()))...)
	httpctlv1.RegisterQueryServiceServer(server, faulty{})
	httpctlv1.RegisterIngestServiceServer(server, faulty{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	query := httpctlv1.NewQueryServiceClient(conn)
	for range 2 {
		if _, err := query.GetTop(t.Context(), &httpctlv1.GetTopRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "as a test wants") {
			t.Errorf("a question that panics: %v, want an internal error without what is in the log", err)
		}
	}
	stream, err := httpctlv1.NewIngestServiceClient(conn).Deliver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("a stream that panics: %v, want an internal error", err)
	}
	if _, err := query.GetStatus(t.Context(), &httpctlv1.GetStatusRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	conn.Close()
	server.Stop()
	wg.Wait()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "httpctl_access_faults_total" {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if counted != 3 {
		t.Errorf("%v faults are counted, want 3", counted)
	}
	if s := log.String(); strings.Count(s, "top as a test wants") != 1 || strings.Count(s, "stream as a test wants") != 1 || !strings.Contains(s, "fault_test.go") {
		t.Errorf("the log does not have each once, with its stack:\n%s", s)
	}
}
