package exchange

import (
	"hash/fnv"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Other is what OpenTelemetry's semantic conventions call a value outside a
// bounded set.
const Other = "_OTHER"

// Invalid is the domain of a request whose authority cannot be one.
const Invalid = "(invalid)"

// MethodAttribute returns the method as the semantic conventions bound
// http.request.method: the methods of RFC 9110, PATCH (RFC 5789) and QUERY
// (draft-ietf-httpbis-safe-method-w-body) as they are, anything else as [Other]. Methods
// are case-sensitive (RFC 9110 section 9.1).
func MethodAttribute(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method
	}
	return Other
}

// Bound cuts s to at most limit bytes. A string that is cut ends in 8
// hexadecimal digits of its hash, so that two long strings with a common start
// stay apart. It never cuts inside a UTF-8 sequence. A limit below 16 is taken
// as 16.
func Bound(s string, limit int) string {
	limit = max(limit, 16)
	if len(s) <= limit {
		return s
	}
	h := fnv.New32a()
	h.Write([]byte(s))
	const digits = "0123456789abcdef"
	sum := h.Sum32()
	var tail [8]byte
	for i := range tail {
		tail[i] = digits[sum>>(28-4*i)&0xf]
	}
	cut := limit - len(tail)
	for cut > 0 && cut > limit-len(tail)-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + string(tail[:])
}

// Domain returns the domain of a request (DESIGN section 2): the authority of
// an absolute-form or CONNECT target, otherwise the Host field, otherwise the
// server's address; in lower-case ASCII, without user information, port and
// final dot, an IPv6 literal with its brackets. An authority that can't be a
// host is [Invalid].
func Domain(method, target, host string, server netip.Addr) string {
	authority := host
	if method == "CONNECT" {
		authority = target
	} else if a, ok := absoluteAuthority(target); ok {
		authority = a
	}
	if authority == "" {
		server = server.Unmap()
		if !server.IsValid() {
			return Invalid
		}
		if server.Is6() {
			return "[" + server.WithZone("").String() + "]"
		}
		return server.String()
	}
	return normalHost(authority)
}

// absoluteAuthority returns the authority of an absolute-form target
// (RFC 9112 section 3.2.2), and whether target has that form.
func absoluteAuthority(target string) (string, bool) {
	if target == "" || target[0] == '/' || target[0] == '*' {
		return "", false
	}
	i := strings.Index(target, "://")
	if i <= 0 || !isScheme(target[:i]) {
		return "", false
	}
	rest := target[i+3:]
	if j := strings.IndexAny(rest, "/?#"); j >= 0 {
		rest = rest[:j]
	}
	return rest, true
}

// isScheme reports whether s is a scheme (RFC 3986 section 3.1).
func isScheme(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		switch {
		case 'a' <= c && c <= 'z':
		case i > 0 && (s[i] >= '0' && s[i] <= '9' || s[i] == '+' || s[i] == '-' || s[i] == '.'):
		default:
			return false
		}
	}
	return s != ""
}

// normalHost reduces an authority to its host.
func normalHost(a string) string {
	if i := strings.LastIndexByte(a, '@'); i >= 0 {
		a = a[i+1:]
	}
	if strings.HasPrefix(a, "[") {
		i := strings.IndexByte(a, ']')
		if i < 0 || !validPort(a[i+1:]) {
			return Invalid
		}
		addr, err := netip.ParseAddr(a[1:i])
		if err != nil || !addr.Is6() {
			return Invalid
		}
		return "[" + addr.WithZone("").String() + "]"
	}
	if i := strings.IndexByte(a, ':'); i >= 0 {
		if !validPort(a[i:]) {
			return Invalid
		}
		a = a[:i]
	}
	a = strings.TrimSuffix(a, ".")
	if a == "" || len(a) > 255 {
		return Invalid
	}
	lower := false
	for i := 0; i < len(a); i++ {
		c := a[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '%':
		case 'A' <= c && c <= 'Z':
			lower = true
		case strings.IndexByte("!$&'()*+,;=", c) >= 0: // sub-delims of a reg-name
		default:
			return Invalid
		}
	}
	if lower {
		a = strings.ToLower(a)
	}
	return a
}

// validPort reports whether s is empty or ":" followed by digits.
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) <= 6
}

// Section returns domain + "/" + the first path segment of target (DESIGN
// section 2). An absolute-form target contributes its path, "*" is kept, and
// an authority-form target (CONNECT) has the root section.
func Section(domain, method, target string) string {
	if target == "*" {
		return domain + "/*"
	}
	path := target
	if method == "CONNECT" {
		path = ""
	} else if a, ok := absoluteAuthority(target); ok {
		path = target[strings.Index(target, "://")+3+len(a):]
	}
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	path = strings.TrimLeft(path, "/")
	if i := strings.IndexByte(path, '/'); i >= 0 {
		path = path[:i]
	}
	return domain + "/" + decodeUnreserved(path)
}

// decodeUnreserved decodes the percent-encoded octets that RFC 3986 section
// 6.2.2.2 says never needed encoding, and leaves every other triplet alone.
func decodeUnreserved(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, ok1 := unhex(s[i+1])
			lo, ok2 := unhex(s[i+2])
			if c := hi<<4 | lo; ok1 && ok2 && isUnreserved(c) {
				b = append(b, c)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
