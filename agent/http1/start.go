package http1

import "bytes"

// Protocol is what the first bytes of a direction show.
type Protocol uint8

// The protocols that are told apart. Unknown is anything else.
const (
	Unknown Protocol = iota
	TLS
	HTTP2
	SSH
	RTSP
	SIP
	ICAP
)

// A verdict says what a stretch of bytes at a possible message start is.
type verdict uint8

const (
	isMore     verdict = iota // a start so far; the line is not complete
	isRequest                 // a request line
	isSimple                  // a HTTP/0.9 request line
	isBare                    // a request line without version, of another method or before fields
	isResponse                // a status line
	isForeign                 // another protocol
	isPrefix                  // a PROXY protocol header, to be passed over
	isNot                     // none of these
)

// maxMethod bounds the method of a request line. The longest registered one,
// UPDATEREDIRECTREF, has 17 bytes.
const maxMethod = 32

// http2Preface opens an HTTP/2 connection (RFC 9113 section 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n"

// proxyV2 opens a binary PROXY protocol header.
const proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"

// matches reports whether b begins with lit; partly, whether b is a proper
// prefix of lit.
func matches(b []byte, lit string) (whole, partly bool) {
	if len(b) >= len(lit) {
		return string(b[:len(lit)]) == lit, false
	}
	return false, string(b) == lit[:len(b)]
}

// sniff looks at the first bytes of a direction for protocols other than
// HTTP/1. It returns isMore when b is too short to tell, isNot when it is
// none of them, and for isPrefix the length of what to pass over.
func sniff(b []byte) (v verdict, proto Protocol, skip int) {
	switch c := b[0]; {
	case c >= 0x14 && c <= 0x17:
		// A TLS record: type 20 to 23, version 3.0 to 3.4 (RFC 8446 section 5.1).
		if len(b) < 3 {
			if len(b) == 2 && b[1] != 3 {
				return isNot, Unknown, 0
			}
			return isMore, Unknown, 0
		}
		if b[1] == 3 && b[2] <= 4 {
			return isForeign, TLS, 0
		}
		return isNot, Unknown, 0
	case c == '\r':
		whole, partly := matches(b, proxyV2)
		switch {
		case partly:
			return isMore, Unknown, 0
		case !whole:
			return isNot, Unknown, 0
		case len(b) < 16:
			return isMore, Unknown, 0
		}
		return isPrefix, Unknown, 16 + int(b[14])<<8 + int(b[15])
	case c == 'P':
		if whole, partly := matches(b, http2Preface); whole {
			return isForeign, HTTP2, 0
		} else if partly {
			return isMore, Unknown, 0
		}
		whole, partly := matches(b, "PROXY ")
		if partly {
			return isMore, Unknown, 0
		}
		if whole {
			// A PROXY protocol header of version 1 has at most 107 bytes.
			rest := b[:min(len(b), 107)]
			if i := bytes.IndexByte(rest, '\n'); i >= 0 {
				if !bytes.Contains(rest[:i], []byte(" HTTP/")) {
					return isPrefix, Unknown, i + 1
				}
			} else if len(b) < 107 {
				return isMore, Unknown, 0
			}
		}
	case c == 'S':
		whole, partly := matches(b, "SSH-")
		if whole {
			return isForeign, SSH, 0
		}
		if partly {
			return isMore, Unknown, 0
		}
	}
	return isNot, Unknown, 0
}

// startLine judges the line at the start of b. It sets h's kind and start-line
// fields when the line is a request or status line, and returns the length of
// the line with its end. With strict, only what RFC 9112 allows is taken, and no rest of a method.
func startLine(b []byte, h *Message, strict bool) (v verdict, proto Protocol, n int) {
	v, proto, n = startLineOdd(b, h, strict)
	if v == isRequest && h.odd {
		return isNot, Unknown, 0
	}
	return v, proto, n
}

// startLineOdd is startLine that takes, with strict, a target of any bytes, and then sets h.odd.
func startLineOdd(b []byte, h *Message, strict bool) (v verdict, proto Protocol, n int) {
	if whole, partly := matches(b, "HTTP/"); whole || partly {
		return statusLine(b, h, strict)
	}
	// method SP request-target SP HTTP-version (RFC 9112 section 3); not strict, with any white space for SP
	m := 0
	for m < len(b) && m <= maxMethod && isToken[b[m]] {
		m++
	}
	if m > maxMethod {
		return isNot, Unknown, 0
	}
	if m == len(b) {
		return isMore, Unknown, 0
	}
	if m == 0 {
		return isNot, Unknown, 0
	}
	if b[m] == '/' {
		// RTSP/1.0 200 OK, SIP/2.0 200 OK, ICAP/1.0 200 OK
		if p := otherVersion(b); p != Unknown {
			return isForeign, p, 0
		}
	}
	if b[m] != ' ' && (strict || !isBlank(b[m])) {
		return isNot, Unknown, 0
	}
	eol := bytes.IndexByte(b[m:], '\n')
	if eol < 0 {
		if bytes.IndexByte(b[m:min(len(b), 256)], 0) >= 0 {
			return isNot, Unknown, 0
		}
		return isMore, Unknown, 0
	}
	eol += m
	line := b[:eol]
	lf := true
	if line[len(line)-1] == '\r' {
		line, lf = line[:len(line)-1], false
	}
	i := 0
	if strict {
		i = bytes.LastIndexByte(line, ' ')
	} else {
		for len(line) > m && isBlank(line[len(line)-1]) {
			line = line[:len(line)-1]
		}
		for i = len(line) - 1; i >= m && !isBlank(line[i]); i-- {
		}
	}
	if i < m || bytes.IndexByte(line, 0) >= 0 {
		return isNot, Unknown, 0
	}
	version := line[i+1:]
	if i == m {
		if !isSimpleTarget(version) {
			return isNot, Unknown, 0
		}
		*h = Message{Kind: Request, Method: line[:m], Target: version, Version: 9, bareLF: lf, crlf: !lf}
		if string(h.Method) == "GET" && eol+1 == len(b) {
			return isSimple, Unknown, eol + 1
		}
		return isBare, Unknown, eol + 1
	}
	if !isVersion(version) {
		if p := otherVersion(version); p != Unknown {
			return isForeign, p, 0
		}
		if strict || !isLooseVersion(version) {
			return isNot, Unknown, 0
		}
	}
	target := line[m+1 : i]
	for len(target) > 0 && isBlank(target[0]) {
		target = target[1:]
	}
	for len(target) > 0 && isBlank(target[len(target)-1]) {
		target = target[:len(target)-1]
	}
	if len(target) == 0 {
		return isNot, Unknown, 0
	}
	if strict && isRest(line[:m]) {
		return isNot, Unknown, 0
	}
	*h = Message{Kind: Request, Method: line[:m], Target: target, Version: 11, bareLF: lf, crlf: !lf}
	h.odd = strict && !isStrictTarget(target)
	if isVersion(version) {
		h.Version = 10 + version[7] - '0'
	}
	h.anyBare = line[m] == '\r' || line[i] == '\r'
	return isRequest, Unknown, eol + 1
}

// registered are the methods of the IANA registry (RFC 9110 section 16.1), but those that belong to HTTP/2 and to fields.
var registered = [...]string{
	"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL", "LINK",
	"LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS", "ORDERPATCH",
	"PATCH", "POST", "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "TRACE", "UNBIND", "UNCHECKOUT",
	"UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
}

// isRest reports whether m is what a gap leaves of a registered method, and none itself: D of HEAD. Where anything may
// stand that is more likely than a method which nobody knows, and nobody can say which one it was.
func isRest(m []byte) bool {
	rest := false
	for _, r := range registered {
		if n := len(r) - len(m); n >= 0 && r[n:] == string(m) {
			if n == 0 {
				return false
			}
			rest = true
		}
	}
	return rest
}

// isBlank reports whether c may stand for SP in a request line that is not read strictly (RFC 9112 section 3).
func isBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' && c != '\n' }

// statusLine judges a line that begins like a status line: HTTP-version SP
// 3DIGIT [ SP reason ] (RFC 9112 section 4). The reason is not looked at.
func statusLine(b []byte, h *Message, strict bool) (v verdict, proto Protocol, n int) {
	const form = "HTTP/1.d ddd"
	whole := len(b) >= len(form) && string(b[:7]) == form[:7] && b[8] == ' ' && b[7]-'0' <= 9 && b[9]-'0' <= 9 && b[10]-'0' <= 9 && b[11]-'0' <= 9
	for i := 0; !whole && i < len(form) && i < len(b); i++ {
		if form[i] == 'd' {
			if b[i] < '0' || b[i] > '9' {
				return isNot, Unknown, 0
			}
		} else if form[i] != b[i] {
			return isNot, Unknown, 0
		}
	}
	if len(b) <= len(form) {
		return isMore, Unknown, 0
	}
	if c := b[len(form)]; c != ' ' && c != '\r' && c != '\n' && (strict || c != '\t') || b[9] < '1' {
		return isNot, Unknown, 0
	}
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		return isMore, Unknown, 0
	}
	lf := b[eol-1] != '\r'
	*h = Message{
		Kind: Response, Version: 10 + b[7] - '0',
		Status: int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0'),
		bareLF: lf, crlf: !lf,
	}
	return isResponse, Unknown, eol + 1
}

// isVersion reports whether b is HTTP/1. and a digit.
func isVersion(b []byte) bool {
	return len(b) == 8 && string(b[:7]) == "HTTP/1." && b[7] >= '0' && b[7] <= '9'
}

// isLooseVersion reports whether b is a version of HTTP as a request line may
// name it in error, in any case: HTTP/2.0, http/1.1, HTTP/1.10, HTTP/1. Servers answer such a
// request, with 400 or 505 if not with more, and log it.
func isLooseVersion(b []byte) bool {
	if len(b) < 6 || len(b) > 16 || !equalFold(b[:5], "http/") {
		return false
	}
	return len(skipVersion(b[5:])) == 0
}

// skipVersion passes over digits and dots.
func skipVersion(b []byte) []byte {
	for len(b) > 0 && (b[0] >= '0' && b[0] <= '9' || b[0] == '.') {
		b = b[1:]
	}
	return b
}

// looseStatusLine judges a line in the place of a response that is no status
// line of RFC 9112 but that clients take for one: with another version, more
// white space, or less, and the ICY of streaming servers.
func looseStatusLine(b []byte, h *Message) (v verdict, n int) {
	rest, isICY := bytes.CutPrefix(b, []byte("ICY"))
	if !isICY {
		whole, partly := matches(b, "HTTP/")
		if !whole {
			if _, icy := matches(b, "ICY"); partly || icy {
				return isMore, 0
			}
			return isNot, 0
		}
		rest = skipVersion(b[len("HTTP/"):])
		if len(b)-len(rest) > 16 {
			return isNot, 0
		}
	}
	eol := bytes.IndexByte(rest, '\n')
	if eol < 0 {
		return isMore, 0
	}
	n = len(b) - len(rest) + eol + 1
	lf := n < 2 || b[n-2] != '\r'
	code := bytes.TrimLeft(rest[:eol], " \t")
	if len(code) == eol || len(code) < 3 || len(code) > 3 && code[3] >= '0' && code[3] <= '9' {
		return isNot, 0
	}
	status, ok := decimal(code[:3])
	if !ok || status < 100 {
		return isNot, 0
	}
	*h = Message{Kind: Response, Version: 11, Status: int(status), bareLF: lf, crlf: !lf}
	if isICY {
		h.Version = 10
	}
	return isResponse, n
}

// otherVersion names the protocol whose version begins b.
func otherVersion(b []byte) Protocol {
	switch {
	case bytes.HasPrefix(b, []byte("RTSP/")):
		return RTSP
	case bytes.HasPrefix(b, []byte("SIP/")):
		return SIP
	case bytes.HasPrefix(b, []byte("ICAP/")):
		return ICAP
	}
	return Unknown
}

// isStrictTarget reports whether b is a request-target by its octets:
// visible ASCII, or octets above it, which clients send unencoded.
func isStrictTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// isSimpleTarget is the form a HTTP/0.9 target must have to be believed.
func isSimpleTarget(b []byte) bool {
	if len(b) == 0 || b[0] != '/' {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// isToken is tchar of RFC 9110 section 5.6.2.
var isToken = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()
