package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// A mutation is a way in which a worse capture shows a trap.
type mutation string

// What shows every packet must change nothing; of what does not, rule says what it shows.
const (
	split   mutation = "split"         // every segment in two, at every byte, and all bytes alone
	swapped mutation = "swapped"       // two packets in each other's place
	doubled mutation = "doubled"       // every packet twice, and each again later
	delayed mutation = "delayed"       // each packet later
	dropped mutation = "dropped"       // without one, two and three packets
	joined  mutation = "joined late"   // from each packet on
	oneWay  mutation = "one direction" // what one end sends
	snaplen mutation = "snaplen"       // 72, 96, 256: what a packet has beyond is cut off
)

var mutations = map[mutation]func(m *mutant){
	split: (*mutant).split, swapped: (*mutant).swap, doubled: (*mutant).double, delayed: (*mutant).delay,
	dropped: (*mutant).drop, joined: (*mutant).join, oneWay: (*mutant).hear, snaplen: (*mutant).cut,
}

// A mutant is a trap under mutation.
type mutant struct {
	*testing.T
	*trap
	mss    int
	frames []frame
	whole  *seen
	// readings counts, vague those of which the rule knows only bounds, unordered those of which it knows
	// the messages but not what answers what.
	readings, vague, unordered int
}

// same wants frames to show what they do in their place. What is early is told by the time at which
// packets were captured (DESIGN section 2), which differs.
func (m *mutant) same(frames []frame, how string, args ...any) {
	m.Helper()
	m.readings++
	got, want := watch(m, frames), *m.whole
	got.count[exchange.EarlyResponses], want.count[exchange.EarlyResponses] = 0, 0
	if !slices.Equal(m.lines(got), m.lines(&want)) || got.counters() != want.counters() {
		m.Errorf("in pieces of %d, %s:\n%s\nwant\n%s", m.mss, fmt.Sprintf(how, args...), got, &want)
	}
}

// shows wants of frames what the rule tells.
func (m *mutant) shows(frames []frame, how string, args ...any) {
	m.Helper()
	m.readings++
	got, want := watch(m, frames), rule(m.trap, frames)
	if want.vague {
		m.vague++
	} else if want.unordered && want.pipelined() {
		m.unordered++
	}
	if err := m.compare(got, want); err != nil {
		m.Errorf("in pieces of %d, %s: %v\ngot\n%s\nwant %q\nof\n%s", m.mss, fmt.Sprintf(how, args...), err, got, want.names(), m.whole)
	}
}

func (m *mutant) compare(got *seen, want *told) error {
	if len(m.want) == 0 {
		return m.alone(got, want)
	}
	names, lines, told := namesOf(m.lines(got)), m.lines(got), want.names()
	counts := map[exchange.Counter]uint64{
		exchange.TruncatedPackets: want.truncated, exchange.FragmentsDropped: want.fragments, exchange.MalformedPackets: 0,
		exchange.UndecodedPackets: 0, exchange.OversizedHeads: 0, exchange.EvictedBytes: 0,
	}
	gapBytes := got.count[exchange.GapBytes]
	switch {
	case want.vague:
	case want.unordered:
		// A gap may come before what has the connection left alone, and the FIN of each end count as a byte.
		if gapBytes < want.gapBytes || gapBytes > want.missing+2 || got.count[exchange.Gaps] < want.gaps {
			return fmt.Errorf("%d gaps of %d bytes, want at least %d of %d, and at most %d bytes", got.count[exchange.Gaps], gapBytes, want.gaps, want.gapBytes, want.missing+2)
		}
	default:
		counts[exchange.GapBytes], counts[exchange.Gaps] = want.gapBytes, want.gaps
	}
	if !want.vague {
		counts[exchange.Resyncs], counts[exchange.InterimResponses] = want.resyncs, want.interim()
	}
	for _, c := range slices.Sorted(maps.Keys(counts)) {
		if got.count[c] != counts[c] {
			return fmt.Errorf("%s = %d, want %d", c, got.count[c], counts[c])
		}
	}
	switch {
	case want.vague:
		whole := namesOf(m.lines(m.whole))
		if n := mispaired(names, whole); n > 1 { // where it begins
			return fmt.Errorf("%d pairs of %q do not belong together", n, names)
		}
		return within(halves(names), halves(whole))
	case want.unordered:
		if err := within(halves(names), halves(told)); err != nil {
			return err
		}
		if want.pipelined() {
			// Pairs shift; and what is taken for the answer to HEAD is without its end, so that what follows is lost.
			return within(requests(told), requests(names))
		}
		// Two messages that belong together may be shown apart, never two that do not as a pair.
		if n := mispaired(names, told); n > 0 {
			return fmt.Errorf("%d pairs of %q do not belong together", n, names)
		}
		if err := within(halves(told), halves(names)); err != nil {
			return err
		}
	case !slices.Equal(names, told):
		return fmt.Errorf("exchanges %q, want %q", names, told)
	}
	for _, l := range want.untouched(m.want) {
		if !slices.ContainsFunc(lines, func(s string) bool { return s == l || strings.HasPrefix(s, l+" ") }) {
			return fmt.Errorf("nothing of %q is missing", l)
		}
	}
	if n := got.count[exchange.SkippedBytes]; n+want.aside[0] < want.skipped || n > want.skipped+want.aside[1] {
		return fmt.Errorf("%d bytes skipped, want %d (-%d, +%d)", n, want.skipped, want.aside[0], want.aside[1])
	}
	return nil
}

// mispaired is how many of the pairs are none of those that were said, beside what is body text.
func mispaired(names, said []string) (n int) {
	for _, s := range names {
		req, resp, _ := strings.Cut(s, " = ")
		if req != "-" && resp != "-" && !isInside(s) && !slices.Contains(said, s) {
			n++
		}
	}
	return n
}

// isInside says that text is that of a message within a body.
func isInside(text string) bool {
	return strings.Contains(text, "/inside") || strings.Contains(text, "299")
}

// alone is for what is no HTTP: each connection that carries anything is counted once, by its name if
// its first line is there.
func (m *mutant) alone(got *seen, want *told) error {
	if err := within(halves(namesOf(got.lines())), nil); err != nil {
		return err
	}
	var name exchange.Counter
	for c, n := range m.count {
		if c.OtherProtocol() && n > 0 {
			name = c
		}
	}
	var others uint64
	for c, n := range got.count {
		if exchange.Counter(c).OtherProtocol() {
			others += n
		}
	}
	switch sure := got.count[name]; {
	case others != want.carried() && !want.vague:
		return fmt.Errorf("%d connections of other protocols, want %d", others, want.carried())
	case want.named() && sure != 1:
		return fmt.Errorf("%s = %d, want 1", name, sure)
	case got.count[name]+got.count[exchange.OtherUnknown] < others:
		return fmt.Errorf("another protocol than %s", name)
	case got.count[exchange.GapBytes] > want.missing:
		return fmt.Errorf("%d bytes missing, want at most %d", got.count[exchange.GapBytes], want.missing)
	}
	return nil
}

// lines are those of seen, with what was said where another copy of it was shown.
func (m *mutant) lines(s *seen) []string {
	lines := s.lines()
	if m.but != nil {
		for i := range lines {
			lines[i] = m.but.Replace(lines[i])
		}
		slices.Sort(lines)
	}
	return lines
}

// namesOf shortens lines to what told.names has.
func namesOf(lines []string) (out []string) {
	for _, l := range lines {
		req, resp, _ := strings.Cut(l, " = ")
		if req != "-" {
			w := strings.SplitN(req, " ", 3)
			req = w[0] + " " + w[1]
		}
		resp, _, _ = strings.Cut(resp, " ")
		out = append(out, req+" = "+resp)
	}
	slices.Sort(out)
	return out
}

// halves are the messages of exchanges.
func halves(names []string) (out []string) {
	for _, s := range names {
		req, resp, _ := strings.Cut(s, " = ")
		for _, h := range []string{req, resp} {
			if h != "-" {
				out = append(out, h)
			}
		}
	}
	slices.Sort(out)
	return out
}

// requests are the first halves.
func requests(names []string) (out []string) {
	for _, s := range names {
		if req, _, _ := strings.Cut(s, " = "); req != "-" {
			out = append(out, req)
		}
	}
	return out
}

// within reports what some have that others have not, beside what is body text.
func within(some, others []string) error {
	left := slices.Clone(others)
	for _, s := range some {
		if isInside(s) {
			continue
		}
		i := slices.Index(left, s)
		if i < 0 {
			return fmt.Errorf("%q is none of %q", s, others)
		}
		left = slices.Delete(left, i, i+1)
	}
	return nil
}

func (m *mutant) split() {
	step := 1
	if testing.Short() {
		step = 7
	}
	ips := m.ips()
	if m.packets != nil {
		step = 97
	}
	var bytes [][]byte
	for i, ip := range ips {
		network, transport, _, _ := ipHeader(ip)
		for at := 1; at < len(ip)-network-transport; at += step {
			m.same(m.dress(slices.Replace(slices.Clone(ips), i, i+1, cutSegment(ip, 0, at)...)), "packet %d split at %d", i+1, at)
		}
		bytes = append(bytes, cutSegment(ip, 1)...)
	}
	if m.packets == nil {
		m.same(m.dress(bytes), "byte by byte")
	}
}

func (m *mutant) double() {
	var twice []frame
	for _, f := range m.frames {
		twice = append(twice, f, f)
	}
	m.same(twice, "every packet twice")
	for i, f := range m.frames {
		for _, later := range []int{1, 3, len(m.frames)} {
			if f.flags&testkit.SYN != 0 && later > 3 {
				continue // a new connection
			}
			m.same(slices.Insert(slices.Clone(m.frames), min(i+1+later, m.last(f)+1), f), "packet %d again %d later", i+1, later)
		}
	}
}

// last is where the last packet of a packet's connection is: behind it are others on the same ports.
func (m *mutant) last(f frame) int {
	if m.do == nil {
		return len(m.frames) - 1
	}
	i := len(m.frames) - 1
	for m.frames[i].conn != f.conn {
		i--
	}
	return i
}

func (m *mutant) swap() { m.move(1) }

func (m *mutant) delay() { m.move(2, 5, len(m.frames)) }

// move puts each packet later by as many packets.
func (m *mutant) move(by ...int) {
	for i, f := range m.frames {
		for _, later := range by {
			at := min(i+later, m.last(f))
			switch {
			case at == i, later > 1 && f.size == 0 && f.parts == 1:
				continue
			case later > 1 && f.flags&testkit.SYN != 0 && f.size > 0:
				continue // after the answer to its data, whose place it alone tells
			}
			moved := slices.Insert(slices.Delete(slices.Clone(m.frames), i, i+1), at, f)
			m.same(moved, "packet %d later by %d", i+1, later)
		}
	}
}

func (m *mutant) drop() {
	for i := range m.frames {
		for n := 1; n <= 3 && i+n <= len(m.frames); n++ {
			m.shows(slices.Delete(slices.Clone(m.frames), i, i+n), "without packets %d to %d", i+1, i+n)
		}
	}
}

func (m *mutant) join() {
	for i := range m.frames {
		m.shows(m.frames[i:], "from packet %d on", i+1)
	}
}

func (m *mutant) hear() {
	for _, up := range []bool{true, false} {
		half := slices.DeleteFunc(slices.Clone(m.frames), func(f frame) bool { return f.up != up })
		m.shows(half, "one direction, up %t", up)
	}
}

func (m *mutant) cut() {
	for _, n := range []int{72, 96, 256} {
		cut := slices.Clone(m.frames)
		for i := range cut {
			if f := &cut[i]; len(f.Data) > n {
				f.length, f.Data = len(f.Data), f.Data[:n]
			}
		}
		m.shows(cut, "snaplen %d", n)
	}
}

// allTraps are those of the tables.
func allTraps() []*trap {
	var all []*trap
	for i := range traps {
		all = append(all, &traps[i])
	}
	for i := range tcpTraps {
		all = append(all, &tcpTraps[i])
	}
	for i := range wrappings {
		all = append(all, encapsulated(&wrappings[i]))
	}
	return all
}

// TestTraps reads each trap as it was said, and then as a worse capture might
// show it.
func TestTraps(t *testing.T) {
	writeTraps(t)
	var total, vague, unordered int
	for _, tr := range allTraps() {
		t.Run(tr.name, func(t *testing.T) {
			frames := tr.frames(0)
			whole := tr.readFile(t, frames)
			whole.count[exchange.EarlyResponses] = min(whole.count[exchange.EarlyResponses], tr.count[exchange.EarlyResponses])
			if got := whole.lines(); !slices.Equal(got, tr.want) {
				t.Fatalf("exchanges:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tr.want, "\n"))
			}
			tr.checkCounters(t, whole)
			if len(tr.want) == 0 && whole.count[exchange.OtherUnknown] == 0 {
				// A protocol by its first bytes: nothing after them was looked at.
				var rest int
				for _, f := range frames[4:] {
					rest += f.size
				}
				if whole.ignored != uint64(rest) {
					t.Errorf("%d bytes passed over, want %d", whole.ignored, rest)
				}
			}
			for _, mss := range []int{0, 23} {
				if testing.Short() && mss > 0 && tr.wrap != nil {
					continue
				}
				m := &mutant{T: t, trap: tr, mss: mss, frames: tr.frames(mss), whole: whole}
				m.same(m.frames, "as they are")
				for _, name := range slices.Sorted(maps.Keys(mutations)) {
					if tr.not[name] != "" || name == split && mss > 0 {
						continue
					}
					before := m.readings
					mutations[name](m)
					if m.readings == before {
						t.Errorf("nothing was %s", name)
					}
				}
				total, vague, unordered = total+m.readings, vague+m.vague, unordered+m.unordered
			}
		})
	}
	t.Logf("%d readings; of %d the rule knows only bounds, of %d which messages but not which pairs", total, vague, unordered)
	if !testing.Short() && (vague*200 > total || unordered*200 > total) {
		t.Errorf("of %d readings the rule does not know all of %d and of %d", total, vague, unordered)
	}
}

// counters are those of the lines that are wanted, those of tr.count, and no other.
func (tr *trap) counters() (want exchange.Counters) {
	want[exchange.Connections] = 1
	for _, l := range tr.want {
		req, resp, _ := strings.Cut(l, " = ")
		want[exchange.Outcomes]++
		switch hasResponse := !strings.HasPrefix(resp, "- "); {
		case req == "-":
			want[exchange.UnmatchedResponses]++
		case !hasResponse && !strings.Contains(resp, "/"):
			want[exchange.UnmatchedRequests]++
		}
		if req != "-" {
			want[exchange.Requests]++
		}
		if resp[0] != '-' {
			want[exchange.Responses]++
		}
		var interim uint64
		if _, after, ok := strings.Cut(resp, " after "); ok {
			fmt.Sscan(after, &interim)
		}
		want[exchange.InterimResponses] += interim
	}
	for c, n := range tr.count {
		want[c] = n
	}
	return want
}

// checkCounters wants what counts more than packets.
func (tr *trap) checkCounters(t *testing.T, s *seen) {
	t.Helper()
	want := tr.counters()
	for c := exchange.Connections; c < exchange.NumCounters; c++ {
		if s.count[c] != want[c] {
			t.Errorf("%s = %d, want %d", c, s.count[c], want[c])
		}
	}
}
