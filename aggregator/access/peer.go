package access

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"strconv"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
)

// Peer is who is at the other end of a connection.
type Peer struct {
	Roles Role
	// Who names the peer in logs and answers. It holds what a certificate says: clean it before it is shown.
	Who string
	// Identity is that of its certificate; "" on Unix sockets and loopback in plain text.
	Identity string
	// Host is the host that its certificate speaks for; zero where it names none.
	Host bucket.ID
	// Address is where it connects from.
	Address string

	source netip.Addr
	way    way
	token  tokenState
}

// way is how a peer came.
type way uint8

const (
	unknown way = iota
	socket
	loopback
	certificate
)

type tokenState uint8

const (
	noToken tokenState = iota
	wrongToken
	rightToken
)

// peerOf finds out who calls.
func (g *Gate) peerOf(ctx context.Context) Peer {
	c, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{Who: "a peer without a connection"}
	}
	p := Peer{Address: c.Addr.String(), source: sourceOf(c.Addr)}
	switch auth := c.AuthInfo.(type) {
	case localInfo:
		g.local(ctx, &p, c.Addr, auth)
	case credentials.TLSInfo:
		p.way = certificate
		if len(auth.State.VerifiedChains) == 0 {
			p.Who = "a peer without a certificate"
			break
		}
		g.certified(&p, auth.State.VerifiedChains[0][0])
	default:
		p.Who = "a peer of an unknown kind"
	}
	return p
}

// local gives the roles of a peer of this host. Whoever may open the socket, or is on the host, may read and
// deliver; what changes something takes root, the user of this program, or the token.
func (g *Gate) local(ctx context.Context, p *Peer, addr net.Addr, auth localInfo) {
	switch a := addr.(type) {
	case *net.TCPAddr:
		if !a.IP.IsLoopback() {
			p.Who = "plain text from " + a.IP.String()
			return
		}
		p.way, p.Who = loopback, "plain text from loopback"
	case *net.UnixAddr:
		if !auth.known {
			p.Who = "a user of the socket whom the kernel does not name"
			return
		}
		p.way, p.Who = socket, "user "+strconv.FormatUint(uint64(auth.uid), 10)+" of the socket"
		if auth.uid == 0 || auth.uid == g.uid && g.uid != overflowUID {
			p.Roles |= Admin
		}
	default:
		p.Who = "plain text from elsewhere"
		return
	}
	p.Roles |= Agent | Viewer
	if sent := metadata.ValueFromIncomingContext(ctx, security.TokenHeader); len(sent) > 0 {
		p.token = wrongToken
		if len(sent) == 1 && g.token.Is(sent[0]) {
			p.token = rightToken
			p.Roles |= Admin
		}
	}
}

// certified gives the roles of the holder of a verified certificate.
func (g *Gate) certified(p *Peer, cert *x509.Certificate) {
	p.Identity = security.PeerIdentity(cert)
	if p.Identity == "" || len(p.Identity) > maxIdentity {
		p.Identity, p.Who = "", "a certificate without a usable name"
		return
	}
	p.Who = "certificate " + strconv.Quote(p.Identity)
	p.Roles, p.Host = g.own(cert)
	for _, e := range *g.entries.Load() {
		if e.matches(p.Identity) {
			p.Roles |= e.role
			if !e.host.IsZero() {
				p.Host = e.host
			}
		}
	}
}

// own reads the identities that `httpctl ca` gives: spiffe://DOMAIN/ROLE/NAME, where an agent's name is its host's id. Only
// those of this aggregator's trust domain count, so that another authority's ids mean nothing by chance.
func (g *Gate) own(cert *x509.Certificate) (Role, bucket.ID) {
	role, name, err := authority.Identity(cert)
	if err != nil || g.domain == "" || cert.URIs[0].String() != "spiffe://"+g.domain+"/"+string(role)+"/"+name {
		return 0, bucket.ID{}
	}
	switch role {
	case authority.Agent:
		if host, err := bucket.ParseID(name); err == nil && !host.IsZero() && host.String() == name {
			return Agent, host
		}
	case authority.Viewer:
		return Viewer, bucket.ID{}
	case authority.Admin:
		return Admin, bucket.ID{}
	}
	return 0, bucket.ID{}
}
