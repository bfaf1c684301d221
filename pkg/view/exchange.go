package view

import (
	"cmp"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// exchangeColumns are what is told of an exchange of a file.
var exchangeColumns = []Column{
	{Name: "time", Head: "TIME", Kind: Instant}, {Name: "first_packet", Head: "PACKET", Kind: Number}, {Name: "client", Head: "CLIENT"}, {Name: "server", Head: "SERVER"},
	{Name: "role", Head: "ROLE"}, {Name: "protocol", Head: "PROTOCOL"}, {Name: "method", Head: "METHOD"}, {Name: "host", Head: "HOST"}, {Name: "domain", Head: "DOMAIN"},
	{Name: "target", Head: "TARGET"}, {Name: "section", Head: "SECTION"}, {Name: "user_agent", Head: "USER AGENT"}, {Name: "status", Head: "STATUS", Kind: Number},
	{Name: "interim_responses", Head: "INTERIM", Kind: Number}, {Name: "request_bytes", Head: "REQUEST CONTENT", Kind: Bytes}, {Name: "response_bytes", Head: "RESPONSE CONTENT", Kind: Bytes},
	{Name: "request_wire_bytes", Head: "REQUEST", Kind: Bytes}, {Name: "response_wire_bytes", Head: "RESPONSE", Kind: Bytes},
	{Name: "ttfb_seconds", Head: "TTFB", Kind: Duration}, {Name: "duration_seconds", Head: "DURATION", Kind: Duration},
	{Name: "suspect", Head: "SUSPECT", Kind: List}, {Name: "unmatched", Head: "UNMATCHED"}, {Name: "end", Head: "END"},
}

// exchangeCells are parallel to exchangeColumns. What belongs to an absent half is absent.
func exchangeCells(x *exchange.Exchange) []any {
	ttfb, _, hasTTFB := x.TTFB()
	duration, hasDuration := x.Duration()
	return []any{
		exchangeTime(x), clamp(x.FirstPacket), cmp.Or(x.ClientName, x.Client.String()), x.Server.String(),
		x.Role.String(), x.Protocol, half(x.HasRequest, x.Method), half(x.HasRequest, x.Host), half(x.HasRequest, x.Domain),
		half(x.HasRequest, x.Target), half(x.HasRequest, x.Section), half(x.HasRequest, x.UserAgent),
		half(x.HasResponse && x.Status != 0, int64(x.Status)), // HTTP/0.9 has none
		int64(x.Interim), half(x.HasRequest, clamp(x.RequestBytes)), half(x.HasResponse, clamp(x.ResponseBytes)),
		half(x.HasRequest, clamp(x.RequestWireBytes)), half(x.HasResponse, clamp(x.ResponseWireBytes)),
		half(hasTTFB, time.Duration(ttfb)), half(hasDuration, time.Duration(duration)), half(x.HasRequest, x.Suspect.Names()), x.Unmatched(), x.End.String(),
	}
}

// exchangeTime is that of the request, and of the response if there is no request.
func exchangeTime(x *exchange.Exchange) time.Time {
	if x.HasRequest {
		return time.Unix(0, x.RequestStart)
	}
	return time.Unix(0, x.ResponseStart)
}

// Exchange writes an exchange of a file. It keeps nothing of it.
func (r *Records) Exchange(x *exchange.Exchange) error {
	return r.write(exchangeColumns, exchangeCells(x))
}

// sampleOf is an exchange of a file as a line has it.
func sampleOf(x *exchange.Exchange) *Sample {
	s := &Sample{
		Time: exchangeTime(x), Client: cmp.Or(x.ClientName, x.Client.String()), Server: x.Server.String(), Role: x.Role.String(), Protocol: x.Protocol,
		HasRequest: x.HasRequest, HasResponse: x.HasResponse, Method: x.Method, Domain: x.Domain, Section: x.Section, Path: x.Target, UserAgent: x.UserAgent,
		Status: x.Status, RequestBytes: x.RequestWireBytes, ResponseBytes: x.ResponseWireBytes, End: x.End.String(),
	}
	if _, rest, absolute := strings.Cut(s.Path, "://"); absolute { // the domain stands before the path
		s.Path = "/"
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			s.Path = rest[i:]
		}
	}
	if s.Method == "CONNECT" {
		s.Path = "" // it is the domain
	}
	if d, _, ok := x.TTFB(); ok {
		t := time.Duration(d)
		s.TTFB = &t
	}
	if d, ok := x.Duration(); ok {
		t := time.Duration(d)
		s.Duration = &t
	}
	return s
}
