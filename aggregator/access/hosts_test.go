package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// memory is a Store.
type memory struct {
	mu      sync.Mutex
	version uint64
	values  map[string][]byte
	at      map[string]uint64
	err     error
}

func newMemory() *memory { return &memory{values: map[string][]byte{}, at: map[string]uint64{}} }

func (m *memory) Get(_ context.Context, key string) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key], m.at[key], m.err
}

func (m *memory) CompareAndSwap(_ context.Context, key string, version uint64, value []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || m.at[key] != version {
		return 0, errors.Join(m.err, store.ErrConflict)
	}
	if value == nil {
		delete(m.values, key)
		delete(m.at, key)
		return 0, nil
	}
	m.version++
	m.values[key], m.at[key] = slices.Clone(value), m.version
	return m.version, nil
}

func (m *memory) List(_ context.Context, from, to string, f func(string, []byte, uint64) error) error {
	for key, value := range m.values {
		if key >= from && key < to {
			if err := f(key, value, m.at[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

func as(p Peer) context.Context { return context.WithValue(context.Background(), peerKey{}, p) }

func holder(identity string, host bucket.ID) Peer {
	return Peer{Roles: Agent, Who: fmt.Sprintf("certificate %q", identity), Identity: identity, Host: host}
}

var hostB = bucket.ID{0xb}

// TestClaims: whose a host id is, and that it stays so after a restart.
func TestClaims(t *testing.T) {
	st := newMemory()
	g := New(Roles{Agent: []string{"*", "db.example.org = " + hostB.String()}}, Deps{})
	nobody := Peer{Roles: Agent, Who: "plain text from loopback"}
	none := bucket.ID{}
	for i, c := range []struct {
		name string
		peer Peer
		host bucket.ID
		want string // of the refusal; "" is none
	}{
		{"a program of this host", nobody, hostA, ""},
		{"the first certificate", holder("web1", none), hostA, ""},
		{"the same again", holder("web1", none), hostA, ""},
		{"another", holder("web2", none), hostA, `host ` + hostA.String() + ` belongs to the certificate "web1", and certificate "web2" comes`},
		{"none any more", nobody, hostA, `belongs to the certificate "web1", and plain text from loopback comes`},
		{"one that names another host", holder("spiffe://fleet/agent/"+hostB.String(), hostB), hostA, "is that of host " + hostB.String()},
		{"one that names the host", holder("spiffe://fleet/agent/"+hostA.String(), hostA), hostA, ""},
		{"the first one, then", holder("web1", none), hostA, "belongs to the certificate \"spiffe://fleet/agent/"},
		{"a host of the settings", holder("web1", none), hostB, `belongs to the certificate "db.example.org" by aggregator.roles.agent`},
		{"its own", holder("db.example.org", hostB), hostB, ""},
		{"a program of this host, of the settings", nobody, hostB, `by aggregator.roles.agent`},
		{"a name to clean", holder("web\x1b[2J", none), hostB, `web\x1b[2J`},
	} {
		for _, when := range []string{"", " after a restart"} {
			h, err := g.OpenHosts(t.Context(), st, 10)
			if err != nil {
				t.Fatal(err)
			}
			identity, certain, err := h.Claim(as(c.peer), c.host)
			switch {
			case c.want == "" && (err != nil || identity != c.peer.Identity || certain != (c.peer.Host == c.host)):
				t.Errorf("%d %s%s: %q, %v, %v, want it admitted", i, c.name, when, identity, certain, err)
			case c.want != "" && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b")):
				t.Errorf("%d %s%s: %v, want it refused with %q", i, c.name, when, err, c.want)
			}
		}
	}
	if len(st.values) != 2 {
		t.Errorf("%d bindings are stored, want those of two hosts", len(st.values))
	}
	if _, _, err := (&Hosts{gate: g}).Claim(t.Context(), hostA); status.Code(err) != codes.Internal {
		t.Errorf("a call that has not passed the gate: %v", err)
	}
}

// TestClaimAtOnce: of many certificates that claim a host at the same time one gets it.
func TestClaimAtOnce(t *testing.T) {
	h, err := New(Roles{}, Deps{}).OpenHosts(t.Context(), newMemory(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var got []string
	for i := range 20 {
		wg.Go(func() {
			if identity, _, err := h.Claim(as(holder(fmt.Sprint("web", i), bucket.ID{})), hostA); err == nil {
				mu.Lock()
				got = append(got, identity)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%q have the host, want one", got)
	}
}

// TestClaimLimits: a certificate that claims one host after another gets no further than the bound, the store's
// failure refuses, and hosts without data are forgotten after a day.
func TestClaimLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newMemory()
		h, err := New(Roles{}, Deps{}).OpenHosts(t.Context(), st, 3)
		if err != nil {
			t.Fatal(err)
		}
		claim := func(n byte) error {
			_, _, err := h.Claim(as(holder("shared", bucket.ID{})), bucket.ID{n})
			return err
		}
		st.err = errors.New("no space left on device")
		if err := claim(1); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("while the store fails: %v, want Unavailable", err)
		}
		st.err = nil
		for n := byte(1); n <= 3; n++ {
			if err := claim(n); err != nil {
				t.Fatal(err)
			}
		}
		if err := claim(4); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "max_agents") {
			t.Errorf("one host too many: %v, want Unavailable", err)
		}
		if err := claim(1); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		prune := func() {
			t.Helper()
			if err := h.Prune(t.Context(), []store.Host{{ID: bucket.ID{1}}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(keepUnstored - time.Minute)
		prune()
		if err := claim(2); err != nil || len(h.bound) != 3 {
			t.Errorf("before a day: %v, %d hosts, want all 3", err, len(h.bound))
		}
		time.Sleep(time.Minute)
		prune() // 1 has data, 2 was heard of
		if len(h.bound) != 2 || len(st.values) != 2 || h.bound[bucket.ID{3}].Identity != "" {
			t.Errorf("after a day %d hosts are bound, %d in the store, want 1 and 2", len(h.bound), len(st.values))
		}
		if err := claim(4); err != nil {
			t.Errorf("there is room again: %v", err)
		}
		h.SetMost(4)
		if err := claim(5); err != nil {
			t.Errorf("with a higher bound: %v", err)
		}
	})
}

func TestDamagedBinding(t *testing.T) {
	st := newMemory()
	st.values[hostPrefix+hostA.String()] = []byte("{")
	if _, err := New(Roles{}, Deps{}).OpenHosts(t.Context(), st, 3); err == nil || !strings.Contains(err.Error(), hostA.String()) {
		t.Errorf("OpenHosts = %v, want the key named", err)
	}
}
