package app

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// pieces are the lengths into which traps are cut: one that puts every message
// into a packet of its own, and one that cuts all of them.
var pieces = []int{1460, 23}

// TestTraps reads each trap as it was said, and then as a worse capture might
// show it. What does not lose anything must change nothing.
func TestTraps(t *testing.T) {
	for i := range traps {
		tr := &traps[i]
		t.Run(tr.name, func(t *testing.T) {
			whole := watch(t, tr.frames(1460, true))
			if got := whole.lines(); !slices.Equal(got, tr.want) {
				t.Errorf("exchanges:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tr.want, "\n"))
			}
			tr.checkCounters(t, whole)
			if len(tr.want) == 0 && whole.count[exchange.OtherUnknown] == 0 {
				// A protocol by its first bytes: nothing after them was looked at.
				var rest int
				for i, f := range tr.frames(1460, true) {
					if i > 3 {
						rest += f.size
					}
				}
				if whole.ignored != uint64(rest) {
					t.Errorf("%d bytes passed over, want %d", whole.ignored, rest)
				}
			}
			same := func(how string, frames []frame) {
				t.Helper()
				if got := watch(t, frames); got.String() != whole.String() {
					t.Fatalf("%s:\n%s\nwant\n%s", how, got, whole)
				}
			}
			tr.split(t, same)
			for _, mss := range pieces {
				if mss < 1460 && tr.whole {
					continue
				}
				frames := tr.frames(mss, false)
				if !tr.whole {
					same(fmt.Sprintf("in pieces of %d", mss), frames)
				}
				tr.keep(t, mss, frames, whole)
				if err := tr.lose(t, frames, whole); err != nil {
					t.Fatalf("in pieces of %d, %v", mss, err)
				}
			}
		})
	}
}

// checkCounters wants those of the lines, those of tr.count, and no other.
func (tr *trap) checkCounters(t *testing.T, s *seen) {
	t.Helper()
	var want exchange.Counters
	for i := range s.exchanges {
		x := &s.exchanges[i]
		if x.HasRequest {
			want[exchange.Requests]++
		}
		if x.HasResponse && x.Status != 0 {
			want[exchange.Responses]++
		}
		switch x.Unmatched() {
		case "request":
			want[exchange.UnmatchedRequests]++
		case "response":
			want[exchange.UnmatchedResponses]++
		}
		want[exchange.InterimResponses] += uint64(x.Interim)
	}
	want[exchange.Outcomes] = uint64(len(s.exchanges))
	want[exchange.Connections] = 1
	for c, n := range tr.count {
		want[c] = n
	}
	for c := exchange.Connections; c < exchange.NumCounters; c++ {
		if s.count[c] != want[c] {
			t.Errorf("%s = %d, want %d", c, s.count[c], want[c])
		}
	}
}

// split cuts the conversation in two at every byte, and at all of them.
func (tr *trap) split(t *testing.T, same func(how string, frames []frame)) {
	if tr.whole {
		return
	}
	var turns []message
	for _, m := range tr.say {
		if k := len(turns) - 1; k >= 0 && turns[k].up == m.up {
			turns[k].text += m.text
			continue
		}
		turns = append(turns, m)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for i, m := range turns {
		for at := 1; at < len(m.text); at += step {
			cut := slices.Concat(turns[:i], []message{{m.up, m.text[:at]}, {m.up, m.text[at:]}}, turns[i+1:])
			same(fmt.Sprintf("turn %d split at %d", i, at), segments(cut))
		}
	}
	same("byte by byte", tr.frames(1, true))
}

// keep applies what shows every packet, but not as it came.
func (tr *trap) keep(t *testing.T, mss int, frames []frame, whole *seen) {
	// What is early is told by the time at which packets were captured
	// (DESIGN section 2), which delays change.
	want := *whole
	want.count[exchange.EarlyResponses] = 0
	same := func(how string, frames []frame) {
		t.Helper()
		got := watch(t, frames)
		got.count[exchange.EarlyResponses] = 0
		if got.String() != want.String() {
			t.Errorf("%s:\n%s\nwant\n%s", how, got, &want)
		}
	}
	first := 0
	if tr.handshake {
		first = 3
	}
	n := len(frames)
	var twice []frame
	for i := range frames {
		twice = append(twice, frames[i], frames[i])
	}
	same("every packet twice", twice)
	for i := range n {
		how := fmt.Sprintf("in pieces of %d, packet %d ", mss, i+1)
		for _, later := range []int{1, 3, n} {
			if frames[i].syn && later == n {
				continue // the SYN of a new connection
			}
			at := min(i+1+later, n)
			same(how+fmt.Sprintf("again %d later", later), slices.Insert(slices.Clone(frames), at, frames[i]))
		}
		if i < first {
			continue
		}
		for _, later := range []int{1, 2, 5, n} {
			if later > 1 && frames[i].size == 0 {
				continue
			}
			moved := slices.Clone(frames)
			at := min(i+later, n-1)
			moved = slices.Insert(slices.Delete(moved, i, i+1), at, frames[i])
			same(how+fmt.Sprintf("delayed by %d", later), moved)
		}
	}
}

// lose applies what does not show everything.
func (tr *trap) lose(t *testing.T, frames []frame, whole *seen) error {
	t.Helper()
	for i := range frames {
		for _, count := range []int{1, 2, 3} {
			if count > 1 && testing.Short() {
				break
			}
			if i+count > len(frames) {
				break
			}
			if count > 1 && tr.pipelined {
				break
			}
			got := watch(t, slices.Delete(slices.Clone(frames), i, i+count))
			how := fmt.Sprintf("without packets %d to %d", i+1, i+count)
			if err := got.within(whole, false, tr.pipelined); err != nil {
				return fmt.Errorf("%s: %w:\n%s\nof\n%s", how, err, got, whole)
			}
			if err := tr.lost(frames[i:i+count], got, whole); err != nil {
				return fmt.Errorf("%s: %w:\n%s\nof\n%s", how, err, got, whole)
			}
		}
		got := watch(t, frames[i:])
		if err := got.within(whole, true, tr.pipelined); err != nil {
			return fmt.Errorf("from packet %d on: %w:\n%s\nof\n%s", i+1, err, got, whole)
		}
	}
	for _, up := range []bool{true, false} {
		half := slices.DeleteFunc(slices.Clone(frames), func(f frame) bool { return f.up != up })
		got := watch(t, half)
		how := fmt.Sprintf("only one direction, up %t", up)
		if err := got.within(whole, false, tr.pipelined); err != nil {
			return fmt.Errorf("%s: %w:\n%s\nof\n%s", how, err, got, whole)
		}
		for i := range got.exchanges {
			if x := &got.exchanges[i]; x.HasRequest && x.HasResponse {
				return fmt.Errorf("%s: an exchange has two sides:\n%s", how, got)
			}
		}
		if up && got.count[exchange.Requests] != whole.count[exchange.Requests] {
			return fmt.Errorf("%s: %d requests of %d:\n%s", how, got.count[exchange.Requests], whole.count[exchange.Requests], got)
		}
		want := whole.count[exchange.Responses]
		if tr.oneSided > 0 {
			want = uint64(tr.oneSided - 1)
		}
		if !up && got.count[exchange.Responses] != want {
			return fmt.Errorf("%s: %d responses, want %d:\n%s", how, got.count[exchange.Responses], want, got)
		}
	}
	for _, snaplen := range []int{96, 256} {
		cut := slices.Clone(frames)
		short := false
		for i := range cut {
			if f := &cut[i]; len(f.Data) > snaplen {
				f.length, f.Data = len(f.Data), f.Data[:snaplen]
				short = true
			}
		}
		got := watch(t, cut)
		how := fmt.Sprintf("snaplen %d", snaplen)
		if err := got.within(whole, false, tr.pipelined); err != nil {
			return fmt.Errorf("%s: %w:\n%s\nof\n%s", how, err, got, whole)
		}
		if short != (got.count[exchange.TruncatedPackets] > 0) {
			return fmt.Errorf("%s: %d truncated packets", how, got.count[exchange.TruncatedPackets])
		}
		if !short && got.String() != whole.String() {
			return fmt.Errorf("%s cuts nothing:\n%s\nwant\n%s", how, got, whole)
		}
	}
	return nil
}

// lost wants every message that the missing packets do not touch, and the
// missing bytes counted.
func (tr *trap) lost(missing []frame, got, whole *seen) error {
	bytes, fins := 0, 0
	from, to := 1<<30, 0
	for _, f := range missing {
		if f.fin {
			fins++ // an acknowledged one is told from a byte only by what follows
		}
		if f.size > 0 {
			bytes += f.size
			from, to = min(from, f.from), max(to, f.from+f.size)
		}
	}
	off := whole.count[exchange.OtherUpgraded] > 0 || len(whole.exchanges) == 0
	if n := int(got.count[exchange.GapBytes]); !off && (n < bytes || n > bytes+fins) {
		return fmt.Errorf("%d gap bytes counted, %d are missing", n, bytes)
	}
	if bytes == 0 {
		if !sameMessages(got, whole) && !(tr.handshake && missing[0].syn) {
			return fmt.Errorf("nothing of it was data")
		}
		return nil
	}
	at, touched := 0, map[bool]uint64{}
	for _, m := range tr.say {
		if at < to && at+len(m.text) > from {
			touched[m.up]++
		}
		at += len(m.text)
	}
	if n, of := got.count[exchange.Requests]+touched[true], whole.count[exchange.Requests]; n < of && !(tr.pipelined && got.count[exchange.SkippedBytes] > 0) {
		return fmt.Errorf("%d requests were touched, and %d are missing", touched[true], of-got.count[exchange.Requests])
	}
	if n, of := got.count[exchange.Responses]+touched[false], whole.count[exchange.Responses]; n < of {
		return fmt.Errorf("%d responses were touched, and %d are missing", touched[false], of-got.count[exchange.Responses])
	}
	return nil
}

// sameMessages reports whether both have the same messages in the same pairs.
func sameMessages(a, b *seen) bool {
	reqA, respA, pairsA := a.messages()
	reqB, respB, pairsB := b.messages()
	return maps.Equal(reqA, reqB) && maps.Equal(respA, respB) && maps.Equal(pairsA, pairsB)
}
