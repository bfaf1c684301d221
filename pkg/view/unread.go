package view

import (
	"fmt"
	"strings"
	"time"
)

// UnreadText says which connections are of other protocols than HTTP/1, and so not looked into: "34 TLS, 2 HTTP/2 and 5 other
// connections are not read"; "" if there are none.
func UnreadText(s *Status) string {
	switch text, n := Unread(s); n {
	case 0:
		return ""
	case 1:
		return text + " is not read"
	default:
		return text + " are not read"
	}
}

// Unread names and counts the connections that are not looked into.
func Unread(s *Status) (text string, n uint64) {
	var tls, h2, other uint64
	for _, c := range s.OtherProtocols {
		switch c.Name {
		case "tls":
			tls += c.Value
		case "http2":
			h2 += c.Value
		default:
			other += c.Value
		}
	}
	var parts []string
	for _, p := range []struct {
		n    uint64
		what string
	}{{tls, "TLS"}, {h2, "HTTP/2"}, {other, "other"}} {
		if p.n > 0 {
			parts = append(parts, number(p.n)+" "+p.what)
		}
	}
	switch n = tls + h2 + other; {
	case n == 0:
		return "", 0
	case n == 1:
		return parts[0] + " connection", 1
	case len(parts) > 1:
		parts = []string{strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]}
	}
	return parts[0] + " connections", n
}

// NoData says so where nobody watched in the range, so that its zeros are no quiet; "" where there is data, and where that is not told.
func NoData(d *Dashboard, s Style) string {
	if d.Status.Requests > 0 || len(Loss(d.Status.Loss)) > 0 || d.Status.IntervalStart.IsZero() {
		return ""
	}
	told := false
	for i := range d.Tops {
		if c := d.Tops[i].Coverage; c != nil {
			if told = true; c.Covered > 0 {
				return ""
			}
		}
	}
	if !told {
		return ""
	}
	var first time.Time
	for _, h := range d.Hosts {
		if !h.FirstSeen.IsZero() && (first.IsZero() || h.FirstSeen.Before(first)) {
			first = h.FirstSeen
		}
	}
	text := s.pick("⚠ ", "! ") + "there is no data for this time"
	if !first.IsZero() && !first.Before(d.Status.Until) {
		text += ", it begins at " + s.clock(first)
	}
	return text
}

// WhyNothing says why there is no request, as far as it can be told from what was captured: "" where there are some, where
// no agent reports or there is no data, and before the first interval has ended.
func WhyNothing(d *Dashboard) string {
	s := &d.Status
	if s.Requests > 0 || s.Packets == nil || s.Fleet.Reporting == 0 || s.IntervalStart.IsZero() || NoData(d, Style{}) != "" {
		return ""
	}
	encrypted := uint64(0)
	for _, c := range s.OtherProtocols {
		if c.Name == "tls" || c.Name == "http2" {
			encrypted += c.Value
		}
	}
	switch {
	case *s.Packets == 0:
		return "no packets came: is it the right interface? sudo httpctl-agent --check-capture -i any looks at all"
	case encrypted > 0:
		return fmt.Sprintf("%s came, none of HTTP/1 in clear text: capture behind what ends TLS", plural(*s.Packets, "packet"))
	}
	return fmt.Sprintf("%s came, none of HTTP/1 yet", plural(*s.Packets, "packet"))
}
