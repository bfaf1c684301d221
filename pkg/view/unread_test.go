package view

import (
	"strings"
	"testing"
	"time"
)

func TestUnreadText(t *testing.T) {
	f := func(want string, others ...Count) {
		t.Helper()
		if got := UnreadText(&Status{OtherProtocols: others}); got != want {
			t.Errorf("UnreadText(%v) = %q, want %q", others, got, want)
		}
	}
	f("")
	f("", Count{"tls", 0})
	f("1 TLS connection is not read", Count{"tls", 1})
	f("1,234 TLS connections are not read", Count{"tls", 1234})
	f("34 TLS and 1 HTTP/2 connections are not read", Count{"tls", 34}, Count{"http2", 1})
	f("34 TLS, 2 HTTP/2 and 5 other connections are not read", Count{"ssh", 2}, Count{"tls", 34}, Count{"http2", 2}, Count{"unknown", 3})
}

// TestWhyNothing: no reason is given where there are requests, or where nothing can be known yet.
func TestWhyNothing(t *testing.T) {
	packets := func(n uint64) *uint64 { return &n }
	quiet := Status{Packets: packets(1200), Fleet: Fleet{Reporting: 1}, IntervalStart: noon}
	f := func(want string, change func(*Status)) {
		t.Helper()
		s := quiet
		change(&s)
		if got := WhyNothing(&Dashboard{Status: s}); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("WhyNothing(%+v) = %q, want %q in it", s, got, want)
		}
	}
	f("1,200 packets came, none of HTTP/1 yet", func(*Status) {})
	f("right interface?", func(s *Status) { s.Packets = packets(0) })
	f("none of HTTP/1 in clear text", func(s *Status) { s.OtherProtocols = []Count{{"tls", 3}} })
	f("none of HTTP/1 in clear text", func(s *Status) { s.OtherProtocols = []Count{{"http2", 3}} })
	f("none of HTTP/1 yet", func(s *Status) { s.OtherProtocols = []Count{{"ssh", 3}} })
	f("", func(s *Status) { s.Requests = 1 })
	f("", func(s *Status) { s.Packets = nil })
	f("", func(s *Status) { s.Fleet.Reporting = 0 })
	f("", func(s *Status) { s.IntervalStart = Status{}.IntervalStart })
}

// TestNoData: the zeros of a time in which nobody watched are no quiet, and not the fault of an interface.
func TestNoData(t *testing.T) {
	zero := uint64(0)
	f := func(want string, change func(*Dashboard)) {
		t.Helper()
		d := sample(Normal)
		d.Status.Requests, d.Status.RateAverage, d.Status.Loss, d.Status.Packets = 0, 0, nil, &zero
		d.Status.Since, d.Status.Until = at(-98*time.Hour), at(-97*time.Hour)
		d.Tops = []Top{{Dimension: Dimension{Name: "section", Keys: []string{"section"}}, Coverage: &Coverage{}}}
		change(d)
		text := strings.Join(Frame(d, Style{Width: 110, Height: 40}, ""), "\n")
		if got := NoData(d, Style{Now: noon}); got != want || want != "" && (!strings.Contains(text, "not seen  "+want+"\n") || !strings.Contains(text, "average -  ") || strings.Contains(text, "no HTTP")) {
			t.Errorf("NoData = %q, want %q, in:\n%s", got, want, text)
		}
	}
	f("⚠ there is no data for this time, it begins at 03-02 12:00:00", func(*Dashboard) {})
	f("⚠ there is no data for this time", func(d *Dashboard) { d.Status.Until = noon })
	f("⚠ there is no data for this time", func(d *Dashboard) { d.Hosts = nil })
	f("", func(d *Dashboard) { d.Tops[0].Coverage.Covered = time.Second })
	f("", func(d *Dashboard) { d.Tops[0].Coverage = nil })
	f("", func(d *Dashboard) { d.Status.Loss = []Count{{"unobserved_seconds", 60}} })
	f("", func(d *Dashboard) { d.Status.Requests = 1 })
	f("", func(d *Dashboard) { d.Status.IntervalStart = time.Time{} })
}

// TestUnreadIsShown: the plain dashboard says beside what was not seen what was not read, and why there is nothing.
func TestUnreadIsShown(t *testing.T) {
	d := sample(Normal)
	d.Status.OtherProtocols = []Count{{"tls", 34}}
	text := strings.Join(Frame(d, Style{Width: 110, Height: 40}, ""), "\n")
	if !strings.Contains(text, "not seen  nothing   34 TLS connections are not read\n") || strings.Contains(text, "no HTTP") {
		t.Errorf("want the TLS connections and no reason:\n%s", text)
	}
	n := uint64(77)
	d.Status.Requests, d.Status.Packets = 0, &n
	if text := strings.Join(Frame(d, Style{Width: 110, Height: 40}, ""), "\n"); !strings.Contains(text, "no HTTP   77 packets came, none of HTTP/1 in clear text") {
		t.Errorf("want the reason why there is nothing:\n%s", text)
	}
}
