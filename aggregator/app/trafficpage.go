package app

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/httpctl/httpctl/aggregator/export"
)

const (
	// maxReaders bounds those that are remembered: who read longest ago goes first. maxReader bounds a name, in bytes.
	maxReaders, maxReader = 16, 64
	// firstLook is how far back series begin with 0 for a reader that is not known: Prometheus's own look-back, as what it has had from older
	// ones before is newer than that.
	firstLook = 5 * time.Minute
)

// reader is one that reads the page of traffic under a name.
type reader struct {
	last time.Time // when it read
	seen time.Time // the newest beginning that it was shown
}

// page answers a request for /metrics/traffic. With ?reader=NAME series begin with 0 in the first page of that name that has them.
func (t *traffic) page(r *http.Request) (prometheus.Gatherer, func()) {
	name := r.URL.Query().Get("reader")
	if len(name) > maxReader {
		return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			return nil, fmt.Errorf("reader: %d bytes, want at most %d", len(name), maxReader)
		}), nil
	}
	list := t.snapshot()
	if name == "" {
		return gathered(export.Scrape(list)), nil
	}
	now := time.Now()
	since := now.Add(-firstLook)
	t.mu.Lock()
	if known, ok := t.readers[name]; ok {
		since = known.seen
	}
	t.mu.Unlock()
	return gathered(export.ScrapeSince(list, now, since)), func() { t.taken(name, reader{now, export.Newest(list, since)}) }
}

func gathered(families []*dto.MetricFamily) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
}

// taken notes that a reader has a page.
func (t *traffic) taken(name string, r reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.readers[name]; !known && len(t.readers) >= maxReaders {
		oldest := ""
		for n, other := range t.readers {
			if oldest == "" || other.last.Before(t.readers[oldest].last) {
				oldest = n
			}
		}
		delete(t.readers, oldest)
	}
	t.readers[name] = r
}
