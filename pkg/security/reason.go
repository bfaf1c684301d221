package security

import "strings"

// packing is what gRPC wraps around the reason why a connection failed.
var packing = []string{
	"connection error: desc = ",
	"last connection error: ",
	"transport: ",
	"Error while dialing: ",
	"error while dialing: ",
	"authentication handshake failed: ",
	"error reading server preface: ",
}

const closedAtOnce = "it closed the connection at once: one end may speak TLS and the other not, or it refuses this certificate, or has too many connections"

// meanings say what a failure of a connection means to whoever has to mend
// it, by a part of its text: neither gRPC nor crypto/tls has errors to compare with.
// The first that fits counts.
var meanings = []struct{ part, meaning string }{
	{"connect: connection refused", "nothing listens there"},
	{"connect: no such file or directory", "there is no socket: no aggregator runs on that data directory"},
	{"connect: permission denied", "the socket may be used by its owner and group only"},
	{"first record does not look like a TLS handshake", "plain text is spoken there: set TLS on both ends or on neither"},
	{"signed by unknown authority", "its certificate is of an authority that this end does not know"},
	{"certificate has expired or is not yet valid", "renew its certificate, or set the clock right"},
	{"certificate is valid for", "its certificate carries another name: dial that one, or set it as the server name of TLS"},
	{"doesn't contain any IP SANs", "its certificate carries another name: dial that one, or set it as the server name of TLS"},
	{"remote error: tls: expired certificate", "this end's certificate has expired there: renew it, or set the clocks right"},
	{"remote error: tls: bad certificate", "it does not accept this end's certificate: is it of an authority that the other end knows, and not revoked?"},
	{"remote error: tls: ", "it does not accept this end's certificate: is it of an authority that the other end knows?"},
	{"frame too large", "what answers there speaks another protocol: is it the right port?"},
	{"looked like an HTTP/1.1 header", "what answers there speaks another protocol: is it the right port?"},
	{"received context error while waiting for new LB policy update", "no connection in that time"},
	{"EOF", closedAtOnce},
	{"connection reset by peer", closedAtOnce},
	{"broken pipe", closedAtOnce},
}

// ConnectionReason turns the message of a failed gRPC connection into one for
// people: without gRPC's packing, cleaned, and with what it means where that is known.
func ConnectionReason(message string) string {
	for again := true; again; {
		again = false
		message = strings.Trim(strings.TrimSpace(message), `"`)
		for _, p := range packing {
			if rest, ok := strings.CutPrefix(message, p); ok {
				message, again = rest, true
			}
		}
	}
	message = CleanText(message)
	for _, m := range meanings {
		if strings.Contains(message, m.part) {
			return message + " (" + m.meaning + ")"
		}
	}
	return message
}
