package pairing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/stream"
)

// TestLossNeverShifts: of a client that waits for each response, whatever segments are lost, every pair of
// which nothing is lost is found, and none is of two exchanges, except where both directions lose something with nothing between.
func TestLossNeverShifts(t *testing.T) {
	type segment struct {
		dir  stream.Direction
		text string
		nth  int // of the exchange
		lost bool
	}
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 5))
		var all []segment
		n := 4 + random.IntN(5)
		for i := 1; i <= n; i++ {
			request := getting(fmt.Sprint("/", i))
			switch random.IntN(4) {
			case 0:
				request = "HEAD" + strings.TrimPrefix(request, "GET")
			case 1:
				request = fmt.Sprintf("POST /%d HTTP/1.1\r\nContent-Length: 30\r\n\r\n%s", i, strings.Repeat("p", 30))
			case 2:
				request = fmt.Sprintf("POST /%d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", i)
			}
			body := strings.Repeat("b", 1+random.IntN(60))
			response := okay(400+i, body)
			if random.IntN(3) == 0 {
				response = fmt.Sprintf("HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", 400+i, len(body), body)
			}
			if strings.HasPrefix(request, "HEAD") {
				response = response[:strings.Index(response, "\r\n\r\n")+4]
			}
			for dir, text := range []string{request, response} {
				for len(text) > 0 {
					k := len(text)
					if random.IntN(3) == 0 {
						k = 1 + random.IntN(k)
					}
					all = append(all, segment{dir: stream.Direction(dir), text: text[:k], nth: i})
					text = text[k:]
				}
			}
		}
		touched := make([]bool, n+1)
		for range 1 + random.IntN(3) {
			first := random.IntN(len(all))
			for i := first; i < min(first+1+random.IntN(3), len(all)); i++ {
				all[i].lost = true
				touched[all[i].nth] = true
			}
		}
		r := newRig(t)
		var gaps [2]int
		both := false
		for _, s := range all {
			if s.lost {
				gaps[s.dir] += len(s.text)
				continue
			}
			both = both || gaps[up] > 0 && gaps[down] > 0
			for _, d := range []stream.Direction{s.dir, 1 - s.dir} {
				if gaps[d] > 0 {
					r.chunk(d, nil, uint64(gaps[d]))
					gaps[d] = 0
				}
			}
			r.chunk(s.dir, []byte(s.text), 0)
		}
		r.close(stream.ByFIN)
		if both {
			continue
		}
		found := make([]bool, n+1)
		for _, x := range r.done {
			var i int
			if _, err := fmt.Sscanf(x.Target, "/%d", &i); err != nil || !x.HasResponse {
				continue
			}
			if found[i] = x.Status == 400+i; !found[i] {
				t.Errorf("seed %d: request %d has the response of %d\n%s", seed, i, x.Status-400, r)
			}
		}
		for i := 1; i <= n; i++ {
			if !touched[i] && !found[i] {
				t.Errorf("seed %d: pair %d of %d is not found\n%s", seed, i, n, r)
			}
		}
	}
}
