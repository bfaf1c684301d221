package baseline

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
)

// version of the encoding of a Learning. The store checksums it.
const version = 1

// ErrVersion is wrapped by Decode's error for what a newer program wrote.
var ErrVersion = errors.New("written by a newer version of this program")

// record is a Learning in the store: JSON, times and durations in nanoseconds.
type record struct {
	Version    int    `json:"v"`
	Scope      Scope  `json:"scope"`
	Origin     int64  `json:"origin"`
	From       int64  `json:"from"`
	Restarts   uint32 `json:"restarts,omitempty"`
	DurationNS int64  `json:"duration"`
	WindowNS   int64  `json:"window"`
	Enforced   bool   `json:"enforced,omitempty"`
	Baseline   int64  `json:"baseline,omitempty"`
	Requests   int64  `json:"requests,omitempty"`
	CoveredNS  int64  `json:"covered,omitempty"`
	Hosts      []byte `json:"hosts,omitempty"` // 16 bytes each
}

// Encode returns the durable form of l.
func Encode(l Learning) []byte {
	r := record{version, l.Scope, l.Origin, l.From, l.Restarts, int64(l.Duration), int64(l.Window), l.Enforced,
		l.Result.Baseline, l.Result.Requests, int64(l.Result.Covered), nil}
	for _, h := range l.Result.Hosts {
		r.Hosts = append(r.Hosts, h[:]...)
	}
	data, err := json.Marshal(r)
	if err != nil { // the type has nothing that JSON cannot hold
		panic(err)
	}
	return data
}

// Decode reads what Encode wrote.
func Decode(data []byte) (Learning, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return Learning{}, fmt.Errorf("decode baseline: %w", err)
	}
	if r.Version > version {
		return Learning{}, fmt.Errorf("decode baseline of version %d: %w", r.Version, ErrVersion)
	}
	if r.Version < 1 || r.DurationNS <= 0 || r.WindowNS <= 0 || r.Enforced != (r.Baseline > 0) || len(r.Hosts)%16 != 0 {
		return Learning{}, fmt.Errorf("decode baseline: not what this program writes")
	}
	l := Learning{Scope: r.Scope, Origin: r.Origin, From: r.From, Restarts: r.Restarts,
		Duration: time.Duration(r.DurationNS), Window: time.Duration(r.WindowNS), Enforced: r.Enforced,
		Result: Result{Baseline: r.Baseline, Requests: r.Requests, Covered: time.Duration(r.CoveredNS)}}
	for b := r.Hosts; len(b) > 0; b = b[16:] {
		l.Result.Hosts = append(l.Result.Hosts, bucket.ID(b[:16]))
	}
	return l, nil
}
