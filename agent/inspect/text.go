package inspect

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/security"
)

const (
	width  = 80
	indent = 14 // of values
)

// screen is text under construction.
type screen struct{ strings.Builder }

// head begins a part.
func (s *screen) head(text string) {
	if s.Len() > 0 {
		s.WriteByte('\n')
	}
	s.WriteString(security.CleanText(text) + "\n")
}

// row writes a value, wrapped.
func (s *screen) row(label, format string, args ...any) {
	s.wrapped(fmt.Sprintf("  %-*s", indent-2, label), security.CleanText(fmt.Sprintf(format, args...)), indent)
}

// wrapped writes text behind first, further lines after so many spaces.
func (s *screen) wrapped(first, text string, spaces int) {
	line := first
	fresh := true
	for _, word := range strings.Fields(text) {
		if !fresh && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			s.WriteString(strings.TrimRight(line, " ") + "\n")
			line, fresh = strings.Repeat(" ", spaces), true
		}
		if !fresh {
			line += " "
		}
		line, fresh = line+word, false
	}
	s.WriteString(strings.TrimRight(line, " ") + "\n")
}

// Text is what is shown of the findings.
func (f *Findings) Text() string {
	var s screen
	s.head(fmt.Sprintf("%s, Linux %s, %s", f.Host, f.Release, plural(f.Cores, "core")))
	if f.Failure == None {
		f.plan(&s)
	}
	const most = 8
	for i, l := range f.Links {
		if i == most {
			s.head(fmt.Sprintf("And %s.", plural(len(f.Links)-most, "more interface")))
			break
		}
		if l.There {
			f.link(&s, &l)
		}
	}
	f.traffic(&s)
	f.potential(&s)
	f.verdict(&s)
	return s.String()
}

// plan says how would be captured.
func (f *Findings) plan(s *screen) {
	s.head("Capture")
	why := ""
	if len(f.Namespaces) == 0 {
		s.row("privilege", "CAP_NET_RAW is there: packet sockets can be opened")
	} else {
		s.row("privilege", "CAP_NET_RAW and CAP_SYS_ADMIN are there: packet sockets can be opened in other network namespaces")
		why = " in each network namespace"
	}
	if f.RingsReason != "" {
		why += " (" + f.RingsReason + ")"
	}
	s.row("rings", "%d of %s%s", f.Rings, size(f.RingSize), why)
	s.row("blocks", "%d of %s a ring, handed over when full, or after %v", f.RingSize/max(f.BlockSize, 1), size(f.BlockSize), f.PollTimeout)
	memory := "ceiling " + size(f.Memory) + ", rings included"
	if f.Available > 0 {
		memory += "; " + size(f.Available) + " are available"
	}
	s.row("memory", "%s", memory)
	if f.Ports > 0 {
		s.row("ports", "the kernel passes %s only", plural(f.Ports, "port"))
	}
}

func (f *Findings) link(s *screen, l *Link) {
	s.head("Interface " + l.Name)
	parts := []string{l.Driver}
	if l.Driver == "" {
		parts[0] = "no driver"
		if l.Loopback {
			parts[0] = "loopback"
		}
	}
	switch {
	case !l.Up:
		parts = append(parts, "DOWN")
	case !l.Carrier && !l.Loopback:
		parts = append(parts, "NO CARRIER")
	default:
		parts = append(parts, "up")
	}
	switch {
	case l.Speed > 0 && !l.Hardware:
		parts = append(parts, "nominally "+capture.FormatSpeed(l.Speed))
	case l.Speed > 0:
		parts = append(parts, capture.FormatSpeed(l.Speed))
	default:
		parts = append(parts, "speed not known")
	}
	parts = append(parts, fmt.Sprintf("MTU %d", l.MTU), plural(l.RxQueues, "queue"))
	if f.mirror() || f.Heard > 0 && f.Counters[exchange.Packets] == 0 {
		if l.Promiscuous {
			parts = append(parts, "promiscuous")
		} else if l.Hardware {
			parts = append(parts, "not promiscuous")
		}
	}
	s.row("link", "%s", strings.Join(parts, ", "))
	if l.Offloads == nil {
		s.row("offloads", "not known")
		return
	}
	var on, off []string
	for _, o := range []struct{ feature, name string }{
		{capture.GRO, "GRO"}, {capture.HardwareGRO, "hw-GRO"}, {capture.LRO, "LRO"}, {capture.GSO, "GSO"}, {capture.TSO, "TSO"},
		{capture.RxChecksum, "rx-checksum"}, {"", "tx-checksum"}, {capture.RxVLAN, "rx-VLAN"},
	} {
		is := l.Offloads[o.feature]
		if o.feature == "" {
			is = slices.ContainsFunc(capture.TxChecksum, func(name string) bool { return l.Offloads[name] })
		}
		if is {
			on = append(on, o.name)
		} else {
			off = append(off, o.name)
		}
	}
	s.row("offloads on", "%s", list(on))
	s.row("off", "%s", list(off))
	if slices.ContainsFunc([]string{"GRO", "hw-GRO", "LRO", "GSO", "TSO"}, func(name string) bool { return slices.Contains(on, name) }) {
		fit := "which fit into a block"
		if l.MaxFrame+1024 > f.BlockSize {
			fit = "which do NOT fit into a block"
		}
		if f.BlockSize == 0 {
			fit = "as Linux hands them over"
		}
		s.row("frames", "up to %s, %s", size(l.MaxFrame), fit)
	} else {
		s.row("frames", "as they are on the wire")
	}
	if slices.Contains(on, "tx-checksum") {
		s.row("checksums", "not filled in yet where this host sends: never checked")
	}
	if slices.Contains(on, "rx-VLAN") {
		s.row("VLAN tags", "come beside the frames: connections are found without")
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

func (f *Findings) traffic(s *screen) {
	if f.Heard <= 0 {
		return
	}
	c := &f.Counters
	s.head("Traffic, " + seconds(f.Heard))
	if c[exchange.Packets] == 0 {
		s.row("packets", "none")
	} else {
		s.row("packets", "%s/s, %s, %s bytes each", perSecond(f.rate(exchange.Packets)), bits(f.rate(exchange.PacketBytes)*8), number(c[exchange.PacketBytes]/c[exchange.Packets]))
		s.row("HTTP", "%s requests/s, %s responses/s, %s of the bytes", perSecond(f.rate(exchange.Requests)), perSecond(f.rate(exchange.Responses)), percent(f.HTTPBytes, c[exchange.PacketBytes]))
		if f.mirror() {
			s.row("", "%s of it between other hosts: this is a mirror port or a router", percent(f.Transit, f.Ended))
		}
		s.row("connections", "%s", f.connections())
		s.row("half seen", "%s", f.halfSeen())
	}
	s.row("lost", "%s", f.lost())
	if c[exchange.Packets] > 0 {
		s.row("cost", "%s of a core", share(f.CPU.Seconds()/f.Heard.Seconds()))
	}
}

// connections says of which protocols they are.
func (f *Findings) connections() string {
	c := &f.Counters
	text := number(c[exchange.Connections])
	var parts []string
	for i, n := range c {
		if k := exchange.Counter(i); n > 0 && k.OtherProtocol() && k != exchange.OtherUnknown && k != exchange.OtherSSDP {
			name := strings.ToUpper(k.String())
			if k == exchange.OtherHTTP2 {
				name = "HTTP/2"
			}
			parts = append(parts, fmt.Sprintf("%s %s", number(n), name))
		}
	}
	if n := c[exchange.OtherUnknown]; n > 0 {
		parts = append(parts, number(n)+" unknown")
	}
	if len(parts) > 0 {
		text += ", of which not HTTP/1: " + strings.Join(parts, ", ")
	}
	return text
}

// halfSeen says what has no other half.
func (f *Findings) halfSeen() string {
	c := &f.Counters
	var parts []string
	if n := c[exchange.UnmatchedRequests]; n > 0 {
		parts = append(parts, number(n)+" requests without response")
	}
	if n := c[exchange.UnmatchedResponses]; n > 0 {
		parts = append(parts, number(n)+" responses without request")
	}
	if n := c[exchange.Gaps]; n > 0 {
		parts = append(parts, number(n)+" gaps in connections")
	}
	if len(parts) == 0 {
		return "nothing"
	}
	text := strings.Join(parts, ", ")
	if n := c[exchange.UnmatchedRequests] + c[exchange.UnmatchedResponses]; n > 0 && n*5 <= c[exchange.Outcomes] {
		text += "; a few are, of connections under way"
	}
	return text
}

// lost says what did not come as it was.
func (f *Findings) lost() string {
	c := &f.Counters
	var parts []string
	if n := c[exchange.KernelDrops]; n > 0 {
		parts = append(parts, fmt.Sprintf("%s packets dropped by the kernel, which stopped %s", number(n), times(f.Freezes)))
	}
	for _, l := range f.Links {
		if l.NewMissed > 0 {
			parts = append(parts, fmt.Sprintf("%s missed by %s", number(l.NewMissed), l.Name))
		}
	}
	if n := c[exchange.TruncatedPackets]; n > 0 {
		parts = append(parts, number(n)+" cut")
	}
	if n := c[exchange.MalformedPackets] + c[exchange.UndecodedPackets]; n > 0 {
		parts = append(parts, number(n)+" not understood")
	}
	if len(parts) == 0 {
		return "nothing, neither in the kernel nor by the hardware"
	}
	return strings.Join(parts, ", ")
}

// potential says what this host could take.
func (f *Findings) potential(s *screen) {
	if f.Sample.Packets == 0 {
		return
	}
	s.head("What it could take")
	s.row("one core", "%s packets/s of sample HTTP; of full frames %s", perSecond(f.perCore()), bits(f.lineRate()*1e6))
	if rate := f.rate(exchange.Packets); rate >= 1 {
		s.row("headroom", "%s, with %s", f.headroom(), plural(f.allRings(), "ring"))
	}
	if f.Speed == 0 && f.rate(exchange.PacketBytes) == 0 { // no link is named, and nothing came
		return
	}
	held := float64(f.RingSize) * float64(f.Rings) * 8
	at := ""
	if !f.Guessed {
		at = fmt.Sprintf("%v at the full %s", duration(held/float64(f.Speed)/1e6), capture.FormatSpeed(f.Speed))
	}
	if rate := f.rate(exchange.PacketBytes) * 8; rate > 0 && f.Guessed {
		// A block that is not full is handed over too, and is taken until it was read.
		blocks := float64(f.RingSize/max(f.BlockSize, 1)) * f.PollTimeout.Seconds()
		at = fmt.Sprintf("%v at the rate that came", duration(min(held/rate, blocks)))
	} else if f.Guessed {
		at = fmt.Sprintf("%v at %s", duration(held/float64(f.Speed)/1e6), capture.FormatSpeed(f.Speed))
	}
	s.row("a stall", "the rings hold what comes in %s", at)
}

// headroom compares with what came. By the processor's time it is the least there is, as waking up for
// few packets costs more of it for each than being busy; by the sample, which leaves waking up out, the most.
func (f *Findings) headroom() string {
	most := f.capacity() / f.rate(exchange.Packets)
	if f.CPU <= 0 {
		return "up to " + multiple(most) + " the packets that came"
	}
	least := f.Heard.Seconds() * float64(f.allRings()) / f.CPU.Seconds()
	if least >= most {
		return multiple(most) + " the packets that came"
	}
	return strings.TrimSuffix(multiple(least), " times") + " to " + multiple(most) + " the packets that came"
}

func (f *Findings) verdict(s *screen) {
	v := f.Judge()
	s.WriteByte('\n')
	var places []string
	if len(f.Interfaces) > 0 {
		places = append(places, " on "+strings.Join(f.Interfaces, ", "))
	}
	if len(f.Namespaces) > 0 {
		places = append(places, " in "+strings.Join(f.Namespaces, ", "))
	}
	on := strings.Join(places, " and")
	text := "This host can capture" + on
	switch {
	case !v.Can:
		text = "This host cannot capture" + on + ": " + strings.Join(v.But, "; ")
	case len(v.But) > 0:
		text += ", but: " + strings.Join(v.But, "; ")
	default:
		text += ": ok"
	}
	s.wrapped("", security.CleanText(text), 0)
	if len(v.Changes) == 0 {
		s.WriteString("Nothing to change.\n")
		return
	}
	s.head("What to change")
	for _, c := range v.Changes {
		s.WriteString("  " + security.CleanText(c.Do) + "\n")
		s.wrapped("      ", security.CleanText(c.For), 6)
	}
}

// number writes n with commas.
func number(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// perSecond writes a rate.
func perSecond(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 1, 64) + " million"
	case v >= 10 || v == 0:
		return number(uint64(math.Round(v)))
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// bits writes bits per second.
func bits(v float64) string {
	for _, u := range []struct {
		value float64
		name  string
	}{{1e9, "Gb/s"}, {1e6, "Mb/s"}, {1e3, "kb/s"}} {
		if v >= u.value {
			return strconv.FormatFloat(v/u.value, 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + " b/s"
}

// size writes bytes in the largest unit, to a tenth.
func size(n config.Size) string {
	for _, u := range []struct {
		bytes config.Size
		name  string
	}{{config.GiB, "GiB"}, {config.MiB, "MiB"}, {config.KiB, "KiB"}} {
		if n >= u.bytes {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatInt(int64(n), 10) + " bytes"
}

// percent writes a share of all.
func percent(n, all uint64) string {
	if all == 0 {
		return "0%"
	}
	return share(float64(n) / float64(all))
}

func share(v float64) string {
	switch p := v * 100; {
	case p == 0:
		return "0%"
	case p < 0.1:
		return "less than 0.1%"
	case p < 9.95:
		return strconv.FormatFloat(p, 'f', 1, 64) + "%"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + "%"
	}
}

// multiple writes how many times.
func multiple(v float64) string {
	switch {
	case v >= 100_000:
		return "more than 100,000 times"
	case v >= 10:
		return number(uint64(v)) + " times"
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " times"
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return number(n) + " times"
}

// seconds writes how long was listened.
func seconds(d time.Duration) string {
	n := strconv.FormatFloat(d.Seconds(), 'f', 1, 64)
	return strings.TrimSuffix(n, ".0") + " s"
}

// duration rounds to two digits.
func duration(s float64) string {
	d := time.Duration(s * 1e9)
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
