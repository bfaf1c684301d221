package test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/config"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// TestLiveNeverExceedsTheTruth asks live questions as fast as they are answered
// while two agents send provisional and final buckets: at no moment is there
// more on the screen than has happened, and the window under way moves.
func TestLiveNeverExceedsTheTruth(t *testing.T) {
	t.Parallel()
	c := newCenter(t, func(s *config.Settings, _ *aggregator.Config) { s.MaxTopHits, s.MaxKeys = 1000, 10_000 })
	const n, step = 1600, 5 * time.Millisecond
	type sample struct {
		asked, answered time.Time
		total           int64
		from            time.Time // of a window; zero: everything
	}
	var mu sync.Mutex
	var samples []sample
	var inWindow, ahead, hosts int
	var end time.Time
	keep := func(s sample) {
		s.answered = time.Now()
		mu.Lock()
		samples = append(samples, s)
		mu.Unlock()
	}
	lists := func() {
		for time.Now().Before(end) {
			s := sample{asked: time.Now()}
			top, err := c.client.Top(t.Context(), "section", client.Question{Live: true, Limit: 10})
			if err != nil {
				continue // no bucket yet, so no such list
			}
			s.total = top.Total
			keep(s)
			if final, err := c.client.Top(t.Context(), "section", client.Question{Limit: 10}); err == nil && final.Total < s.total {
				ahead++
			}
		}
	}
	dashboards := func() {
		for time.Now().Before(end) {
			s := sample{asked: time.Now()}
			d, err := c.client.Dashboard(t.Context(), client.Question{Live: true, Limit: 10})
			if err != nil {
				t.Error(err)
				return
			}
			if at := d.Status.Alert; !at.WindowStart.IsZero() && !at.WindowEnd.IsZero() {
				s.total, s.from = int64(at.WindowRequests), at.WindowStart
				if into := d.Status.Time.Sub(at.WindowStart); s.total > 0 && into > 0 && into < time.Second {
					inWindow++ // before the window's first interval has ended
				}
				keep(s)
			}
			s = sample{asked: s.asked}
			for _, top := range d.Tops {
				if top.Name == "domain" {
					s.total = top.Total
				}
			}
			keep(s)
			time.Sleep(5 * time.Millisecond)
		}
	}
	enough := func() bool { return len(samples) >= 100 && ahead > 0 && inWindow > 0 }
	var times []time.Time
	for hosts < 2 || hosts < 12 && !enough() { // on a busy machine it takes more of them
		end = time.Now().Add(9 * time.Second)
		for i := hosts; i < hosts+2; i++ {
			startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), fmt.Sprintf("web-%d", i)), numbered(t, i*100_000, n, step))
		}
		var group sync.WaitGroup
		group.Go(lists)
		group.Go(dashboards)
		group.Wait()
		hosts += 2
		c.settledSections(int64(hosts) * n)
		// When each request happened follows from the first of its host.
		for i := hosts - 2; i < hosts; i++ {
			begin := c.firstSeen(i * 100_000)
			for k := range n {
				times = append(times, begin.Add(time.Duration(k)*step))
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	until := func(at time.Time) int64 {
		i, _ := slices.BinarySearchFunc(times, at, time.Time.Compare)
		return int64(i)
	}
	worst := int64(0)
	for _, s := range samples {
		true_ := until(s.answered)
		if !s.from.IsZero() {
			true_ -= until(s.from)
		}
		if s.total > true_ {
			t.Errorf("between %v and %v the answer was %d from %v, though only %d had happened", s.asked, s.answered, s.total, s.from, true_)
		}
		worst = max(worst, true_-s.total)
	}
	if !enough() {
		t.Errorf("%d answers, %d ahead of the final ones, %d of windows in their first interval: want many of each", len(samples), ahead, inWindow)
	}
	t.Logf("%d answers, at most %d behind the truth", len(samples), worst)
}

// firstSeen is when request n was seen.
func (c *center) firstSeen(n int) time.Time {
	c.t.Helper()
	top, err := c.client.Top(c.t.Context(), "section", client.Question{Limit: 10_000, Filters: []client.Filter{{Column: "section", Values: []string{fmt.Sprintf("example.org/%d", n)}}}})
	if err != nil || len(top.Rows) != 1 {
		c.t.Fatalf("request %d: %v, %v", n, top, err)
	}
	for i, column := range top.Columns {
		if column.Name == "last_seen" {
			return time.Unix(0, top.Rows[0].Values[i].Number)
		}
	}
	c.t.Fatal("no column last_seen")
	return time.Time{}
}

// settledSections waits until n requests are stored.
func (c *center) settledSections(n int64) {
	c.t.Helper()
	eventually(c.t, "everything is stored", func() error {
		top, err := c.client.Top(c.t.Context(), "section", client.Question{})
		if err == nil && top.Total != n {
			err = fmt.Errorf("%d of %d", top.Total, n)
		}
		return err
	})
}

// TestRetention sends 20 minutes of intervals to an aggregator that keeps 10
// seconds: the file stays as small as it was half-way, what is older is gone but for its roll-ups, and what
// comes too late is acknowledged and counted.
func TestRetention(t *testing.T) {
	t.Parallel()
	metrics := freePort(t)
	c := newCenter(t, func(s *config.Settings, c *aggregator.Config) {
		s.MaxRetentionLength, s.MaxLate, c.Metrics = 10*time.Second, 0, metrics
	})
	gauge := func(name string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(fetch(t, metrics))
		if m == nil {
			t.Fatalf("the page for Prometheus has no %s", name)
		}
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	purged := func() {
		t.Helper()
		eventually(t, "old intervals are gone", func() error {
			if n := gauge("httpctl_store_intervals"); n > 73 { // they go by whole minutes
				return fmt.Errorf("%v intervals for 10 s", n)
			}
			return nil
		})
	}
	f, sent, stalled := feed(t, c, 1), int64(0), 0
	send := func(from, to time.Duration) {
		t.Helper()
		for at := f.ago(from); at < f.ago(to); at += int64(time.Second) {
			switch status := f.send(f.make(at, 50)); status {
			case httpctlv1.BucketStatus_BUCKET_STATUS_STORED:
				sent += 50
			case httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED: // this machine has stood still for longer than is kept
				stalled++
			default:
				t.Fatalf("a bucket was %v", status)
			}
			if at/int64(time.Second)%100 == 0 {
				purged()
			}
		}
		purged()
	}
	send(20*time.Minute, 10*time.Minute)
	half := gauge("httpctl_store_size_bytes")
	send(10*time.Minute, 0)
	if size := gauge("httpctl_store_size_bytes"); size > half*1.2 {
		t.Errorf("the file has %v bytes, %v half-way", size, half)
	}
	for range 2 {
		if status := f.send(f.make(f.ago(5*time.Minute), 1)); status != httpctlv1.BucketStatus_BUCKET_STATUS_EXPIRED {
			t.Errorf("a bucket of minutes ago is %v, want expired", status)
		}
	}
	if n := gauge("httpctl_store_expired_total"); n != float64(2+stalled) || stalled > 300 {
		t.Errorf("%v expired buckets are counted, want 2 and %d that this machine was too slow for", n, stalled)
	}
	top, err := c.client.Top(t.Context(), "domain", client.Question{})
	if err != nil || top.Total != sent {
		t.Errorf("%d requests in intervals and roll-ups, %v, want %d", top.Total, err, sent)
	}
}
