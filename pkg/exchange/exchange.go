// Package exchange holds the values that the rest of the program speaks in:
// an HTTP exchange, its two events, the roles a host can play in it, and the
// counters that say what was and was not seen. It imports the standard
// library only, and it knows neither packets nor tables.
package exchange

import (
	"net/netip"
	"strconv"
)

// An Exchange is one HTTP request and the final response that answers it.
// Either half may be missing: HasRequest and HasResponse say which are there,
// and the fields of an absent half are zero.
//
// Strings are immutable and owned by whoever holds the Exchange; producers
// cut each to max_str_length with [Bound]. Times are nanoseconds since the
// Unix epoch, taken from packets, and 0 when the half is absent. An Exchange
// is not safe for concurrent use.
type Exchange struct {
	// Connection numbers the TCP connection within one run of the agent;
	// Stream is the ordinal of the exchange within it. Together they are the
	// key that pairing uses.
	Connection uint64
	Stream     uint64

	Client, Server netip.AddrPort
	// ClientName stands for the client where its address is not to be known, and Client is zero then; see
	// [Exchange.ClientText].
	ClientName string
	// Mirror names the monitored host that is the server end, if that is another
	// one, which counts this exchange too: its host id in text; "" is none.
	Mirror string

	// Protocol is "http/1.1", "http/1.0" or "http/0.9", from the request if
	// there is one, otherwise from the response.
	Protocol string
	// Scheme is "http", or "https" once plaintext from another source exists.
	Scheme string

	// The small fields stand together: pairing reckons with the size of the whole.
	HasRequest  bool
	HasResponse bool
	Role        Role
	// End says how the exchange came to its end.
	End End
	// Suspect holds the reasons why two servers might frame the request
	// differently.
	Suspect Suspicion

	// Method is the method as sent; see [MethodAttribute] for the bounded form.
	Method string
	// Host is the value of the first Host field as sent, trimmed of optional
	// white space; Domain is what DESIGN calls domain.
	Host      string
	Domain    string
	Target    string
	Section   string
	UserAgent string

	// RequestStart is the time of the request's first byte, RequestHead that
	// of the last packet of its head, RequestEnd that of its last byte.
	RequestStart, RequestHead, RequestEnd int64
	// RequestBytes counts content after transfer decoding and before content
	// decoding; RequestWireBytes counts every octet of the message, once.
	RequestBytes, RequestWireBytes uint64

	// Status is the final status code; interim (1xx other than 101) responses
	// are only counted, in Interim.
	Status  int
	Interim int

	// ResponseStart, ResponseHead and ResponseEnd are the like of the final
	// response. ResponseWireBytes has the octets of the interim ones too, as
	// nginx's $bytes_sent has.
	ResponseStart, ResponseHead, ResponseEnd int64
	ResponseBytes, ResponseWireBytes         uint64

	// FirstPacket is the number (from 1) in its source of the packet with the
	// first byte of the exchange.
	FirstPacket uint64
}

// MirrorKey is the value of a table's column "mirror": "0" for what no other monitored host counts, else
// the host id of the one that does. Fleet totals take the rows with "0", and those of hosts whose own buckets are not
// there.
func (x *Exchange) MirrorKey() string {
	if x.Mirror == "" {
		return "0"
	}
	return x.Mirror
}

// ClientText is what the client is counted as: its address without port, or what stands for it.
func (x *Exchange) ClientText() string {
	if x.ClientName != "" {
		return x.ClientName
	}
	return x.Client.Addr().Unmap().String()
}

// TTFB is the time in nanoseconds from the last byte of the request to the
// first byte of the final response. A response that began before its request
// ended is early, and its TTFB is 0. ok is false unless both halves are there
// and the end of the request was seen.
func (x *Exchange) TTFB() (ttfb int64, early, ok bool) {
	if !x.HasRequest || !x.HasResponse || x.ResponseStart == 0 {
		return 0, false, false
	}
	if x.RequestEnd == 0 || x.ResponseStart < x.RequestEnd {
		return 0, true, true
	}
	return x.ResponseStart - x.RequestEnd, false, true
}

// Duration is the time in nanoseconds from the first byte of the request to
// the last byte of the response; ok is false unless both were seen.
func (x *Exchange) Duration() (d int64, ok bool) {
	if !x.HasRequest || !x.HasResponse || x.ResponseEnd == 0 {
		return 0, false
	}
	return max(x.ResponseEnd-x.RequestStart, 0), true
}

// Unmatched names the half that stands alone: "request" has no response,
// "response" has no request, "" is a whole exchange.
func (x *Exchange) Unmatched() string {
	switch {
	case x.HasRequest && !x.HasResponse:
		return "request"
	case x.HasResponse && !x.HasRequest:
		return "response"
	}
	return ""
}

// End says how an exchange came to its end.
type End uint8

// The ways an exchange ends. The zero value is an exchange still open.
const (
	Open     End = iota
	Complete     // both messages ended as their framing says, or the server has answered and wants no more of the request
	Closed       // the connection closed first
	Evicted      // a limit on flows or memory was reached
	TimedOut     // nothing was heard for too long
	Upgraded     // 101, or a CONNECT answered with 2xx: a tunnel follows
	Lost         // a gap took the rest
	Drained      // the source ended while the exchange was open
)

var endNames = [...]string{"open", "complete", "closed", "evicted", "timeout", "upgraded", "lost", "drained"}

// String returns the lower-case name that outputs carry.
func (e End) String() string { return endNames[e] }

// Role says on which side of an exchange the observing host stands.
type Role uint8

// The roles of DESIGN section 2. The zero value is Transit.
const (
	Transit Role = iota // neither end is an address of this host
	Server              // the server end is an address of this host
	Client              // only the client end is an address of this host
)

var roleNames = [...]string{"transit", "server", "client"}

// String returns "transit", "server" or "client".
func (r Role) String() string { return roleNames[r] }

// Event is the kind of thing that happened to an exchange. Every exchange
// makes one RequestSeen event (if it has a request) and one Outcome event;
// long ones make Progress events between them.
type Event uint8

const (
	// RequestSeen happens once, when the head of the request is complete.
	// Only the request's fields are set.
	RequestSeen Event = iota
	// Progress happens at each bucket for an exchange open longer than 60 s.
	// Of the byte counts of an [Observation], only the increase is set.
	Progress
	// Outcome happens once, when the exchange ends.
	Outcome
)

// An Observation is what a statistic is shown: an event of an exchange.
// It and the Exchange are borrowed for the duration of the call.
type Observation struct {
	Event Event
	// Time is the time of the event in nanoseconds since the Unix epoch. It
	// decides the bucket.
	Time int64
	*Exchange
	// New bytes since the last Progress event of this exchange (or since its
	// start). Statistics that sum volume add these, on Progress and Outcome,
	// never the totals in Exchange, so that no byte is counted twice.
	NewRequestBytes, NewRequestWireBytes   uint64
	NewResponseBytes, NewResponseWireBytes uint64
}

// Sink receives observations in the order in which they happen.
type Sink interface {
	Observe(*Observation)
}

// statusText caches the decimal text of every three-digit status.
var statusText = func() (t [1000]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	return t
}()

// StatusText returns the status as decimal text without allocating. 0, which
// stands for an absent response, is "-".
func StatusText(status int) string {
	if status == 0 {
		return "-"
	}
	if status > 0 && status < len(statusText) {
		return statusText[status]
	}
	return strconv.Itoa(status)
}
