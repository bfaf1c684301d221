package pairing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestPipelinedRequestsLost: whatever part of a batch of requests is lost, in one gap, the others find their own
// responses, if the client has sent such batches before, or requests of such a length; both of a client that waits for all responses
// before it sends more, and of one that keeps some requests ahead; both where the gap begins with a request and, each second time, where
// it begins within chunks.
func TestPipelinedRequestsLost(t *testing.T) {
	for seed := range uint64(300) {
		inChunks := seed%2 == 1
		random := rand.New(rand.NewPCG(seed, 11))
		r := newRig(t)
		n, waiting := 0, 0            // requests that were sent, and of them those that wait
		differ := random.IntN(2) == 0 // in length
		text := func() string {
			n++
			waiting++
			more := ""
			if differ && n > 1 { // the first is the shortest
				more = fmt.Sprintf("X: %s\r\n", strings.Repeat("x", random.IntN(50)))
			}
			if inChunks {
				return fmt.Sprintf("POST /%d HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", n, more)
			}
			return fmt.Sprintf("GET /%d HTTP/1.1\r\n%sHost: a\r\n\r\n", n, more)
		}
		ask := func(k int) {
			var b strings.Builder
			for range k {
				b.WriteString(text())
			}
			r.up(b.String())
		}
		answer := func(k int) {
			for range k {
				r.down(okay(200, strings.Repeat("x", n-waiting+1)))
				waiting--
			}
		}
		depth, keep := 2+random.IntN(6), 0
		if random.IntN(2) == 0 {
			keep = 1 + random.IntN(depth-1)
		}
		ask(depth)
		for range 1 + random.IntN(3) {
			answer(depth - keep)
			ask(depth - keep)
		}
		var gaps [][2]int // the requests that each loses
		lost := 0
		for range 2 {
			answer(waiting - keep)
			// Of a batch, some are seen, some lost, some seen.
			batch := depth - keep
			if !differ {
				batch = 1 + random.IntN(batch)
			}
			before := random.IntN(batch)
			k := 1 + random.IntN(batch-before)
			if before > 0 {
				ask(before)
			}
			from, gone := n+1, ""
			for range k {
				gone += text()
			}
			if inChunks { // the first one is cut, not lost
				i := strings.Index(gone, "bod")
				r.up(gone[:i])
				gone = gone[i:]
			}
			r.gapUp(len(gone))
			lost += k
			gaps = append(gaps, [2]int{from, n})
			if after := batch - before - k; after > 0 {
				ask(after)
			}
			for range 6 {
				answer(waiting - keep)
				ask(depth - keep)
			}
		}
		answer(waiting)
		r.close(stream.ByFIN)
		right := 0
		for _, x := range r.done {
			var i int
			if _, err := fmt.Sscanf(x.Target, "/%d", &i); err != nil {
				continue
			}
			switch {
			case x.HasResponse && x.ResponseBytes == uint64(i):
				right++
			case !slices.ContainsFunc(gaps, func(g [2]int) bool { return g[0] <= i && i <= g[1] }):
				t.Errorf("seed %d (%d ahead, %d kept, %v lost): request %d has a response of %d bytes (%t)", seed, depth, keep, gaps, i, x.ResponseBytes, x.HasResponse)
			}
		}
		if right < n-lost {
			t.Errorf("seed %d: %d of %d requests have their responses, %d were lost", seed, right, n, lost)
		}
		if got, want := r.count[exchange.UnmatchedResponses], uint64(lost); got > want {
			t.Errorf("seed %d: %d responses without request, want at most %d", seed, got, want)
		}
	}
}

// TestLongRequestLost: of a client that keeps fewer requests ahead than at first, a lost one that is as long as several leaves one place:
// all others find their responses.
func TestLongRequestLost(t *testing.T) {
	for _, keep := range []int{1, 2} {
		for _, more := range []int{0, 100, 300, 600} {
			r := newRig(t)
			asked, answered := 0, 0
			text := func(more int) string {
				asked++
				return fmt.Sprintf("GET /%d HTTP/1.1\r\nX: %s\r\n\r\n", asked, strings.Repeat("x", more))
			}
			ask := func(n int) {
				for range n {
					r.up(text(0))
				}
			}
			answer := func(n int) {
				for range n {
					answered++
					r.ok(strings.Repeat("x", answered))
				}
			}
			ask(8)
			answer(4)
			ask(4)
			answer(8 - keep)
			for range 2 {
				ask(1)
				answer(1)
			}
			r.gapUp(len(text(more)))
			lost := asked
			for range 12 {
				ask(1)
				answer(1)
			}
			answer(asked - answered)
			r.close(stream.ByFIN)
			right := 0
			for _, x := range r.done {
				var i int
				if _, err := fmt.Sscanf(x.Target, "/%d", &i); err != nil {
					continue
				}
				if right++; !x.HasResponse || x.ResponseBytes != uint64(i) {
					t.Errorf("%d ahead, request %d of %d lost, %d bytes longer: request %d has a response of %d bytes (%t)", keep, lost, asked, more, i, x.ResponseBytes, x.HasResponse)
				}
			}
			if right != asked-1 || r.count[exchange.UnmatchedResponses] != 1 {
				t.Errorf("%d ahead, %d bytes longer: %d requests seen, %d responses without request, want %d and 1", keep, more, right, r.count[exchange.UnmatchedResponses], asked-1)
			}
		}
	}
}
