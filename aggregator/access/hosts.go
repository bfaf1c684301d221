package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/security"
)

// Store is what Hosts needs of a store.Store.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error)
	List(ctx context.Context, from, to string, f func(key string, value []byte, version uint64) error) error
}

// hostPrefix and hostEnd bound the keys of the bindings in the store's state; the host's id follows.
const (
	hostPrefix = "access/host/"
	hostEnd    = "access/host0"
)

// keepUnstored is how long a binding is kept of a host that has no bucket in the store.
const keepUnstored = 24 * time.Hour

// binding says which certificate speaks for a host.
type binding struct {
	Identity string `json:"identity"`
	// Named says that the certificate or the settings name the host; else it was the first to.
	Named bool `json:"named,omitempty"`

	seen time.Time // when it was last claimed, since the start
}

// Hosts remembers which certificate speaks for which host, durably. It is safe for concurrent use.
type Hosts struct {
	gate  *Gate
	store Store

	writing sync.Mutex // held while the store is changed

	mu    sync.Mutex
	most  int
	bound map[bucket.ID]binding
}

// OpenHosts reads what is remembered. At most most hosts are bound at a time.
func (g *Gate) OpenHosts(ctx context.Context, st Store, most int) (*Hosts, error) {
	h := &Hosts{gate: g, store: st, most: most, bound: map[bucket.ID]binding{}}
	now := time.Now()
	err := st.List(ctx, hostPrefix, hostEnd, func(key string, value []byte, _ uint64) error {
		id, err := bucket.ParseID(key[len(hostPrefix):])
		b := binding{seen: now}
		if err == nil {
			err = json.Unmarshal(value, &b)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		h.bound[id] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read which certificates speak for which hosts: %w", err)
	}
	return h, nil
}

// SetMost changes how many hosts are bound at a time; those that are stay so.
func (h *Hosts) SetMost(most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = most
}

// Claim decides whether the caller of a call that has passed the gate may speak for a host, and returns the identity of its
// certificate, and whether it is certain that it is this host's: by the certificate itself or by the settings. A
// certificate that names no host gets the host that it claims first, and nobody else may claim it then, also after a restart. The error is of gRPC.
func (h *Hosts) Claim(ctx context.Context, host bucket.ID) (identity string, certain bool, err error) {
	p, ok := From(ctx)
	if !ok {
		return "", false, status.Error(codes.Internal, "the call has not passed the gate")
	}
	refuse := func(format string, args ...any) (string, bool, error) {
		return "", false, status.Error(codes.PermissionDenied, security.CleanText(fmt.Sprintf(format, args...)))
	}
	if !p.Host.IsZero() && p.Host != host {
		return refuse("%s is that of host %s, and the agent says that it is %s: its state directory and its certificate are of different hosts; enrol it again, "+
			"or put back the file host-id that belongs to the certificate", p.Who, p.Host, host)
	}
	certain = !p.Host.IsZero()
	if !certain {
		if other := h.gate.namedFor(host); other != "" {
			return refuse("host %s belongs to the certificate %q by aggregator.roles.agent, and not to %s", host, other, p.Who)
		}
	}
	h.mu.Lock()
	b, bound := h.bound[host]
	full := !bound && len(h.bound) >= h.most
	if bound && b.Identity == p.Identity && b.Named == certain {
		b.seen = time.Now()
		h.bound[host] = b
		h.mu.Unlock()
		return p.Identity, certain, nil
	}
	h.mu.Unlock()
	switch {
	case p.Identity == "" && !bound:
		return "", false, nil // nothing to remember
	case bound && !certain && b.Identity != p.Identity:
		return refuse("host %s belongs to the certificate %q, and %s comes. If the host shows another certificate now, add %q to aggregator.roles.agent; if it is a copy of "+
			"another host, stop its agent, remove the agent's state directory, and start it", host, b.Identity, p.Who, "IDENTITY = "+host.String())
	case full:
		return "", false, status.Errorf(codes.Unavailable, "certificates speak for %d hosts, the most that this aggregator remembers; raise aggregator.ingest.max_agents", h.most)
	}
	if err := h.bind(ctx, host, binding{Identity: p.Identity, Named: certain, seen: time.Now()}); err != nil {
		if _, ok := status.FromError(err); ok {
			return "", false, err
		}
		return "", false, status.Errorf(codes.Unavailable, "remember the host's certificate: %v", err)
	}
	return p.Identity, certain, nil
}

// bind keeps a binding, first in the store.
func (h *Hosts) bind(ctx context.Context, host bucket.ID, b binding) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	now, bound := h.bound[host]
	h.mu.Unlock()
	if bound && !b.Named && now.Identity != b.Identity { // by another stream, meanwhile
		return status.Errorf(codes.PermissionDenied, "host %s has just been claimed with another certificate", host)
	}
	value, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := h.set(ctx, host, value); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bound[host] = b
	return nil
}

// set writes a binding to the store; nil removes it.
func (h *Hosts) set(ctx context.Context, host bucket.ID, value []byte) error {
	key := hostPrefix + host.String()
	_, version, err := h.store.Get(ctx, key)
	if err == nil {
		_, err = h.store.CompareAndSwap(ctx, key, version, value)
	}
	return err
}

// Prune forgets the hosts of which nothing is stored, and that were not heard of for a day: their ids are free
// again, as their data is gone.
func (h *Hosts) Prune(ctx context.Context, stored []store.Host) error {
	now := time.Now()
	h.mu.Lock()
	stale := maps.Clone(h.bound)
	h.mu.Unlock()
	for _, s := range stored {
		delete(stale, s.ID)
	}
	maps.DeleteFunc(stale, func(_ bucket.ID, b binding) bool { return now.Sub(b.seen) < keepUnstored })
	var errs []error
	for host := range stale {
		errs = append(errs, h.forget(ctx, host, now))
	}
	return errors.Join(errs...)
}

func (h *Hosts) forget(ctx context.Context, host bucket.ID, now time.Time) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.bound[host].seen) < keepUnstored { // claimed meanwhile
		return nil
	}
	if err := h.set(ctx, host, nil); err != nil {
		return fmt.Errorf("forget the certificate of host %s: %w", host, err)
	}
	delete(h.bound, host)
	return nil
}

// namedFor returns the identity that the settings name for a host, if any.
func (g *Gate) namedFor(host bucket.ID) string {
	for _, e := range *g.entries.Load() {
		if e.host == host {
			return e.before
		}
	}
	return ""
}
