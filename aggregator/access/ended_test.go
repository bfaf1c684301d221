package access

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestEnded: what hangs on a connection's context goes with the connection, whatever deadline a call has brought.
func TestEnded(t *testing.T) {
	ctx := ended{}.TagConn(t.Context(), &stats.ConnTagInfo{})
	call, cancel := context.WithTimeout(ctx, 100*365*24*time.Hour)
	defer cancel()
	ended{}.HandleConn(ctx, &stats.ConnBegin{})
	if call.Err() != nil {
		t.Errorf("at the beginning the call's context has ended: %v", call.Err())
	}
	ended{}.HandleConn(ctx, &stats.ConnEnd{})
	if call.Err() == nil {
		t.Error("after the connection's end the call's context lasts")
	}
}

// TestHeadersAreBounded: a call's header is refused before it grows large.
func TestHeadersAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New(Roles{}, Deps{})
	server := grpc.NewServer(append(g.ServerOptions(), grpc.Creds(Local()))...)
	httpctlv1.RegisterQueryServiceServer(server, &answering{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	defer wg.Wait()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	query := httpctlv1.NewQueryServiceClient(conn)
	for _, c := range []struct {
		bytes int
		want  string // in the error; "" is none
	}{{1 << 10, ""}, {2 * maxHeader, "16384 bytes"}} {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("y", c.bytes)), time.Minute)
		_, err := query.GetStatus(ctx, &httpctlv1.GetStatusRequest{})
		cancel()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("a header of %d bytes: %v, want %q", c.bytes, err, c.want)
		}
	}
}
