package pairing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestVaryingWindow: of a client that pipelines now more and now fewer requests, messages of which are lost, hardly a pair is of
// two exchanges: where it can't be known what belongs together, each half is counted alone. What was not lost is counted in any case.
func TestVaryingWindow(t *testing.T) {
	wrong, pairs := 0, 0
	for seed := range uint64(1000) {
		random := rand.New(rand.NewPCG(seed, 13))
		r := newRig(t)
		sent, answered, gaps := 0, 0, 0
		seen := [2]uint64{}
		say := func(d stream.Direction, n int, message func() string) {
			var b strings.Builder
			for range n {
				b.WriteString(message())
			}
			if lossy := seed%3 == 2 || uint64(d) == seed%3; lossy && gaps < 2 && sent > 20 && random.IntN(6) == 0 {
				gaps++
				r.chunk(d, nil, uint64(b.Len()))
				return
			}
			seen[d] += uint64(n)
			r.chunk(d, []byte(b.String()), 0)
		}
		for range 60 {
			waiting := sent - answered
			if room := 1 + random.IntN(8) - waiting; room > 0 && random.IntN(2) == 0 {
				say(up, 1+random.IntN(room), func() string {
					sent++
					return getting(fmt.Sprint("/", sent))
				})
			} else if waiting > 0 {
				say(down, 1+random.IntN(waiting), func() string {
					answered++
					return okay(200, strings.Repeat("x", answered))
				})
			}
		}
		r.close(stream.ByDrain)
		if got := [2]uint64{r.count[exchange.Requests], r.count[exchange.Responses]}; got != seen {
			t.Errorf("seed %d: %d requests and responses, want %d", seed, got, seen)
		}
		for _, x := range r.done {
			var i int
			if _, err := fmt.Sscanf(x.Target, "/%d", &i); err == nil && x.HasResponse {
				if pairs++; x.ResponseBytes != uint64(i) {
					wrong++
				}
			}
		}
	}
	// Some have by chance sent as many as before each time, until something was lost.
	if wrong*100 > pairs || pairs < 20000 {
		t.Errorf("%d of %d pairs are of two exchanges, want at most 1 in 100 of at least 20,000", wrong, pairs)
	}
	t.Logf("%d of %d pairs are of two exchanges", wrong, pairs)
}
