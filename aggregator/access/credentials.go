package access

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// overflowUID is what the kernel calls users that this user namespace does not know (user_namespaces(7)). Who runs as
// it, as in a container with few users, is not taken for them.
const overflowUID = 65534

// localInfo is what is known of a peer on this host.
type localInfo struct {
	credentials.CommonAuthInfo
	uid   uint32
	known bool // uid is the peer's, when it connected
	at    *caller
}

// AuthType implements credentials.AuthInfo.
func (localInfo) AuthType() string { return "local" }

// Local returns the transport security of a server on a Unix socket or, in plain text, on loopback: none, but the kernel is
// asked which user has opened the socket.
func Local() credentials.TransportCredentials { return local{} }

type local struct{}

func (local) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := localInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
	info.at, _ = conn.(*caller)
	if u, ok := underneath(conn).(*net.UnixConn); ok {
		uid, err := peerUID(u)
		if err != nil {
			return nil, nil, err
		}
		info.uid, info.known = uid, true
	}
	return conn, info, nil
}

// underneath takes off what a listener has wrapped around a connection.
func underneath(conn net.Conn) net.Conn {
	for {
		w, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = w.NetConn()
	}
}

func (local) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

func (local) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

func (l local) Clone() credentials.TransportCredentials { return l }

func (local) OverrideServerName(string) error { return nil }
