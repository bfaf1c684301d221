package access

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Admit lets a question through that came over HTTP, or refuses it, as if the method of gRPC (its full name) had been
// called. conn is its connection, of a guarded listener, and state what TLS says of it, nil in plain text. The context that
// it returns says who asks; until it ends, the question counts among those of the peer that are under way. The error is of gRPC.
func (g *Gate) Admit(ctx context.Context, conn net.Conn, state *tls.ConnectionState, method string) (context.Context, error) {
	local := localInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, at: callerOf(conn)}
	p := &peer.Peer{Addr: conn.RemoteAddr(), AuthInfo: local}
	if state != nil {
		p.AuthInfo = credentials.TLSInfo{State: *state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	ctx, err := g.enter(peer.NewContext(ctx, p), method)
	if err == nil {
		who, _ := From(ctx)
		if most := g.busy.enter(ctx, &who); most > 0 {
			err = g.refuse(&who, method, tooBusy, fmt.Sprintf("%d questions of %s are under way, the most that there may be: try again later", most, who.Who))
		}
	}
	if err != nil && g.doors != nil {
		g.doors.strike(p)
	}
	return ctx, err
}

// Greeted notes that a connection of a guarded listener has sent a request, for a server that does not shake hands
// by [Watch]. trusted says that it has shown a verified certificate. conn may be a *tls.Conn.
func Greeted(conn net.Conn, trusted bool) {
	c := callerOf(conn)
	if c == nil {
		return
	}
	d := c.door.doors
	d.mu.Lock()
	c.trusted = trusted
	d.mu.Unlock()
	c.enter()
}

// callerOf finds what a guarded listener has accepted below what was wrapped around it; nil if there is none.
func callerOf(conn net.Conn) *caller {
	for {
		if c, ok := conn.(*caller); ok {
			return c
		}
		w, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = w.NetConn()
	}
}
