package security

import "testing"

func TestConnectionReason(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`,
			"dial tcp 127.0.0.1:1: connect: connection refused (nothing listens there)"},
		{`connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`,
			"tls: first record does not look like a TLS handshake (plain text is spoken there: set TLS on both ends or on neither)"},
		{`connection error: desc = "error reading server preface: remote error: tls: certificate required"`,
			"remote error: tls: certificate required (it does not accept this end's certificate: is it of an authority that the other end knows?)"},
		{`connection error: desc = "error reading server preface: http2: frame too large"`,
			"http2: frame too large (what answers there speaks another protocol: is it the right port?)"},
		{`"error reading server preface: EOF"`,
			"EOF (it closed the connection at once: one end may speak TLS and the other not, or it refuses this certificate, or has too many connections)"},
		{"the aggregator is stopping", "the aggregator is stopping"},
		{"odd \x1b[31m text", `odd \x1b[31m text`},
		{"", ""},
	} {
		if got := ConnectionReason(c.in); got != c.want {
			t.Errorf("ConnectionReason(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}
