package query

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// seen is what one host saw in one interval.
type seen struct {
	host     int
	start    int64
	interval time.Duration
	hits     []hit
}

// naive answers by looking at all that was seen. It shares no code with the store or the service.
type naive []seen

// each calls f for what counts of [from, to): of a host what it saw; of the fleet (host 0) what a host serves, and what another asked it while there is no
// bucket of it.
func (n naive) each(host int, from, to int64, f func(seen, hit)) {
	covered := func(h int, at int64) bool {
		return slices.ContainsFunc(n, func(s seen) bool { return s.host == h && s.start <= at && at < s.start+int64(s.interval) })
	}
	for _, s := range n {
		if s.start < from || s.start >= to || host != 0 && s.host != host {
			continue
		}
		for _, x := range s.hits {
			if host != 0 || x.mirror == 0 || !covered(x.mirror, s.start) {
				f(s, x)
			}
		}
	}
}

// top writes a list as show does.
func (n naive) top(host int, from, to int64, key func(hit) (string, int)) string {
	sums, total := map[string]int{}, 0
	n.each(host, from, to, func(_ seen, x hit) {
		k, v := key(x)
		sums[k] += v
		total += v
	})
	var keys []string
	for k, v := range sums {
		if v > 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(sums[b]-sums[a], strings.Compare(a, b)) })
	var out []string
	for _, k := range keys {
		out = append(out, fmt.Sprintf("%s=%d", k, sums[k]))
	}
	return fmt.Sprintf("%s other=0 total=%d", strings.Join(out, " "), total)
}

func (n naive) requests(host int, from, to int64) (sum uint64) {
	n.each(host, from, to, func(_ seen, x hit) { sum += uint64(x.n) })
	return sum
}

var naiveKeys = map[string]func(hit) (string, int){
	"section":    func(x hit) (string, int) { return x.domain + x.path, x.n },
	"domain":     func(x hit) (string, int) { return x.domain, x.n },
	"method":     func(x hit) (string, int) { return x.method, x.n },
	"user_agent": func(x hit) (string, int) { return x.agent, x.n },
	"volume":     func(x hit) (string, int) { return x.domain, x.n * int(x.up+x.down) },
	"status": func(x hit) (string, int) {
		if x.unanswered {
			return "-", 0
		}
		return fmt.Sprint(x.status), x.n
	},
}

// TestAnswersAreWhatWasSeen asks every kind of question at random, again and again, while buckets come, in time, late, of hosts that ask each other
// and are away, as roll-ups are made and the database is opened anew, and compares each answer with a count of all that was seen.
func TestAnswersAreWhatWasSeen(t *testing.T) {
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 29))
		w := newWorld(t)
		var all naive
		const hosts = 4
		names := []string{"", "hostb", "hostc", "hostd", "hoste"}
		taken := map[string]bool{}
		next := 60 // the newest interval
		var batch []store.Item
		one := func(host, interval int) {
			key := fmt.Sprint(host, interval)
			if taken[key] || interval < 0 {
				return
			}
			taken[key] = true
			s := seen{host: host, start: storetest.At(interval), interval: storetest.Width}
			for range rng.IntN(4) {
				x := hit{n: 1 + rng.IntN(9), domain: []string{"a.example.org", "b.example.org"}[rng.IntN(2)], path: []string{"/", "/x", "/y"}[rng.IntN(3)],
					method: []string{"GET", "POST"}[rng.IntN(2)], agent: []string{"curl", "go"}[rng.IntN(2)], status: []int{200, 404, 503}[rng.IntN(3)],
					wait: time.Duration(1+rng.IntN(50)) * time.Millisecond, up: uint64(rng.IntN(100)), down: uint64(rng.IntN(1000)), unanswered: rng.IntN(8) == 0}
				if rng.IntN(3) == 0 {
					if x.mirror = 1 + rng.IntN(hosts); x.mirror == host {
						x.mirror = 0
					}
				}
				s.hits = append(s.hits, x)
			}
			b := made(t, storetest.Header(host, interval), 1000, s.hits...)
			it := storetest.Item(t, b)
			if rng.IntN(2) == 0 {
				it.Outline = store.WholeOutlineOf(b, it.Data)
			}
			batch, all = append(batch, it), append(all, s)
		}
		for op := range 100 {
			w.now = time.Unix(0, storetest.At(next)+2e9)
			since := w.now.Add(-time.Duration(1+rng.IntN(900)) * time.Second).UnixNano()
			since -= since % []int64{1, 10e9, 60e9}[rng.IntN(3)]
			r := &httpctlv1.Range{SinceUnixNs: max(since, storetest.T0)}
			if rng.IntN(3) == 0 {
				r.UntilUnixNs = r.SinceUnixNs + int64(1+rng.IntN(60))*10e9
			}
			host := rng.IntN(hosts + 1)
			var filters []*httpctlv1.Filter
			if host > 0 {
				if !slices.ContainsFunc(all, func(s seen) bool { return s.host == host }) {
					host = 0
				} else {
					filters = []*httpctlv1.Filter{{Column: "host", Values: []string{names[host]}}}
				}
			}
			what := fmt.Sprintf("seed %d, op %d, host %d, %v", seed, op, host, r)
			switch q := rng.IntN(20); {
			case q < 8 || len(all) == 0:
				for range 1 + rng.IntN(4) {
					for h := 1; h <= hosts; h++ {
						if rng.IntN(5) > 0 { // else it is away
							one(h, next)
						}
						if rng.IntN(6) == 0 {
							one(h, next-rng.IntN(90)) // late
						}
					}
					next++
				}
				if len(batch) > 0 {
					if _, err := w.Store.Append(ctx, batch); err != nil {
						t.Fatal(err)
					}
				}
				batch = nil
			case q < 12:
				for name, key := range naiveKeys {
					a, err := w.GetTop(ctx, &httpctlv1.GetTopRequest{Dimension: name, Range: r, Filters: filters, Limit: 100})
					if err != nil {
						t.Fatal(err)
					}
					got, want := strings.TrimLeft(show(a), " "), strings.TrimLeft(all.top(host, a.Range.SinceUnixNs, to(r, w.now), key), " ")
					if got != want {
						t.Fatalf("%s: top %s =\n%s\nwant\n%s", what, name, got, want)
					}
				}
			case q < 15:
				step := []httpctlv1.SeriesStep{httpctlv1.SeriesStep_SERIES_STEP_INTERVAL, httpctlv1.SeriesStep_SERIES_STEP_MINUTE, httpctlv1.SeriesStep_SERIES_STEP_TEN_MINUTES}[rng.IntN(3)]
				a, err := w.GetSeries(ctx, &httpctlv1.GetSeriesRequest{Step: step, Range: r, Filters: filters, Outcomes: true})
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range a.Points {
					begin, end := p.StartUnixNs, p.EndUnixNs
					if i == len(a.Points)-1 { // to's end
						end = min(to(r, w.now), end+int64(time.Hour))
						if next := p.StartUnixNs + lengthOf(step); end > next {
							end = next
						}
					}
					if want := all.requests(host, begin, end); p.Requests != want || p.Outcomes.GetTotal() != want {
						t.Fatalf("%s: series by %v, point %d of %d from %d on has %d requests, %d outcomes, want %d", what, a.Step, i, len(a.Points), begin, p.Requests, p.Outcomes.GetTotal(), want)
					}
				}
			case q < 17:
				a, err := w.GetDashboard(ctx, &httpctlv1.GetDashboardRequest{Range: r, Filters: filters, Limit: 100})
				if err != nil {
					t.Fatal(err)
				}
				from := a.Status.RangeSinceUnixNs
				if want := all.requests(host, from, to(r, w.now)); a.Status.Requests != want {
					t.Fatalf("%s: the dashboard has %d requests, want %d", what, a.Status.Requests, want)
				}
				for _, top := range a.Tops {
					key := naiveKeys[top.Dimension.Name]
					if key == nil {
						continue
					}
					got, want := strings.TrimLeft(show(top), " "), strings.TrimLeft(all.top(host, from, to(r, w.now), key), " ")
					if got != want {
						t.Fatalf("%s: dashboard's %s =\n%s\nwant\n%s", what, top.Dimension.Name, got, want)
					}
				}
				last := a.Status.IntervalStartUnixNs + int64(storetest.Width)
				for i, n := range a.RateHistory {
					begin := last - int64(len(a.RateHistory)-i)*int64(storetest.Width)
					if want := all.requests(host, begin, begin+int64(storetest.Width)); n != want {
						t.Fatalf("%s: of the rates the %dth from the end has %d requests, want %d", what, len(a.RateHistory)-i, n, want)
					}
				}
			case q < 18:
				a, err := w.ListHosts(ctx, &httpctlv1.ListHostsRequest{Range: r})
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range a.Hosts {
					n := slices.Index(names, h.Name)
					from := r.SinceUnixNs
					if want := all.requests(n, from, to(r, w.now)); h.Requests != want {
						t.Fatalf("%s: %s has %d requests, want %d", what, h.Name, h.Requests, want)
					}
				}
			case q < 19:
				if _, err := w.Store.Rollup(ctx, storetest.At(next-12)); err != nil {
					t.Fatal(err)
				}
			default:
				if p, ok := w.Store.(interface{ Prepare(context.Context) error }); ok {
					if err := p.Prepare(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// to is where a range ends for the store.
func to(r *httpctlv1.Range, now time.Time) int64 {
	if r.UntilUnixNs > 0 {
		return r.UntilUnixNs
	}
	return now.UnixNano() + int64(maxSkew)
}

func lengthOf(step httpctlv1.SeriesStep) int64 {
	if step == httpctlv1.SeriesStep_SERIES_STEP_INTERVAL {
		return int64(storetest.Width)
	}
	return int64(calendars[step].next(0))
}
