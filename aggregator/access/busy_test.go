package access

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/testkit"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestCallsAtATime: how many calls a peer may have under way, by what is known of it; they are free again when they end.
func TestCallsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(ip string) netip.Addr { return netip.MustParseAddr(ip) }
		agent := Peer{way: certificate, Roles: Agent, Identity: "spiffe://fleet/agent/x", Host: hostA, source: at("192.0.2.1")}
		elsewhere := agent
		elsewhere.source = at("192.0.2.2")
		shared := Peer{way: certificate, Roles: Agent, Identity: "agents", source: at("192.0.2.1")}
		stranger := func(ip string) Peer { return Peer{way: certificate, source: at(ip)} }
		for _, c := range []struct {
			name  string
			peers []Peer
			want  int // of them, and so many of each
		}{
			{"an agent, from wherever", []Peer{agent, elsewhere}, maxHostCalls},
			{"a certificate of many hosts", []Peer{shared}, maxCalls},
			{"a stranger", []Peer{stranger("192.0.2.1")}, maxStrangerCallsOfSource},
			{"strangers", []Peer{stranger("192.0.2.1"), stranger("192.0.2.2"), stranger("192.0.2.3"), stranger("192.0.2.4"), stranger("192.0.2.5"), stranger("192.0.2.6"),
				stranger("192.0.2.7"), stranger("192.0.2.8"), stranger("192.0.2.9"), stranger("192.0.2.10")}, maxStrangerCalls},
			{"a program of this host", []Peer{{way: loopback, Roles: Agent | Viewer}}, 5000},
		} {
			var b busy
			for range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				got := 0
				for i := range 5000 {
					if b.enter(ctx, &c.peers[i%len(c.peers)]) == 0 {
						got++
					}
				}
				if got != c.want {
					t.Errorf("%s: %d calls at a time, want %d", c.name, got, c.want)
				}
				cancel()
				synctest.Wait()
				if len(b.calls) != 0 {
					t.Errorf("%s: %v are counted after their end", c.name, b.calls)
				}
			}
		}
	})
}

// TestRefusedCallsEndTheConnection: who calls on what is refused is cut off, and can hold no message in memory meanwhile.
func TestRefusedCallsEndTheConnection(t *testing.T) {
	certs := testkit.Certificates(t, map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "mallory": {}})
	files := func(name string) security.TLS {
		return security.TLS{CertFile: certs + "/" + name + ".pem", KeyFile: certs + "/" + name + ".key", CAFile: certs + "/ca.pem"}
	}
	secure, err := security.ServerCredentials(files("center"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := NewDoors(DefaultLimits(), nil, nil)
	g := New(Roles{}, Deps{Doors: d})
	reached := &answering{}
	server := grpc.NewServer(append(g.ServerOptions(), grpc.Creds(Watch(secure)))...)
	httpctlv1.RegisterQueryServiceServer(server, reached)
	httpctlv1.RegisterIngestServiceServer(server, reached)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(d.Guard(l, false)) })
	defer wg.Wait()
	defer server.Stop()

	creds, err := security.ClientCredentials(files("mallory"))
	if err != nil {
		t.Fatal(err)
	}
	dials := 0
	conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(creds), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	query, ingest := httpctlv1.NewQueryServiceClient(conn), httpctlv1.NewIngestServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	refused := 0
	for i := range maxStrikes + 100 {
		if i%2 == 0 {
			_, err = query.GetStatus(ctx, &httpctlv1.GetStatusRequest{})
		} else {
			s, e := ingest.Deliver(ctx)
			if err = e; err == nil {
				_ = s.Send(&httpctlv1.DeliverRequest{Message: &httpctlv1.DeliverRequest_Bucket{Bucket: &httpctlv1.Bucket{Data: make([]byte, 100<<10)}}})
				_, err = s.Recv()
			}
		}
		switch status.Code(err) {
		case codes.PermissionDenied:
			refused++
		case codes.Unavailable: // cut off
		default:
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if dials < 2 || refused < maxStrikes-1 {
		t.Errorf("%d connections for %d refusals, want a second one", dials, refused)
	}
	if len(reached.who) != 0 {
		t.Errorf("%d calls have passed", len(reached.who))
	}
	conn.Close()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		d.mu.Lock()
		left := fmt.Sprint(d.open, len(d.callers), d.waiting.Len(), d.strangers)
		d.mu.Unlock()
		if left == "0 0 0 0" {
			return
		}
	}
	t.Errorf("connections are left: %d open, %d callers, %d wait", d.open, len(d.callers), d.waiting.Len())
}

// TestRefusedCallsEndLocalConnections: those without TLS are cut off as well.
func TestRefusedCallsEndLocalConnections(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		d := NewDoors(DefaultLimits(), nil, nil)
		server := grpc.NewServer(append(New(Roles{}, Deps{Doors: d}).ServerOptions(), grpc.Creds(Local()))...)
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(d.Guard(l, true)) })
		dials := 0
		conn, err := grpc.NewClient("passthrough:center", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			dials++
			return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
		}))
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxStrikes + 100 {
			err := conn.Invoke(t.Context(), "/nobody/Calls", &httpctlv1.GetStatusRequest{}, &httpctlv1.GetStatusResponse{})
			if c := status.Code(err); c != codes.PermissionDenied && c != codes.Unavailable {
				t.Fatalf("%s: call %d: %v", network, i, err)
			}
		}
		if dials < 2 {
			t.Errorf("%s: %d connections for %d refusals, want a second one", network, dials, maxStrikes+100)
		}
		conn.Close()
		server.Stop()
		wg.Wait()
		if d.open != 0 || d.local.Len() != 0 {
			t.Errorf("%s: connections are left: %d open, %d wait", network, d.open, d.local.Len())
		}
	}
}
