package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"

	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// fleet is a service with its authority and database, on a clock of the test's.
type fleet struct {
	*Service
	dir string
	ca  *authority.Authority
	db  *bolt.DB
	log *bytes.Buffer

	mu  sync.Mutex
	at  time.Time
	reg *prometheus.Registry
}

func (f *fleet) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *fleet) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir(), at: time.Now(), log: &bytes.Buffer{}}
	dir := authority.Dir(f.dir)
	var err error
	if f.ca, err = authority.Create(dir, "fleet.example.org", authority.Owner{}, f.at); err != nil {
		t.Fatal(err)
	}
	if err := authority.WriteNames(dir, []string{"127.0.0.1"}, authority.Owner{}); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	t.Cleanup(func() { f.db.Close() })
	return f
}

// open starts the service on what is on disk.
func (f *fleet) open(t *testing.T) {
	t.Helper()
	var err error
	if f.db, err = bolt.Open(filepath.Join(f.dir, "db"), bolt.Options{}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(f.log, nil))
	own, err := NewOwn(f.ca, authority.Dir(f.dir), time.Hour, f.clock, log)
	if err != nil {
		t.Fatal(err)
	}
	f.reg = prometheus.NewRegistry()
	f.Service, err = New(Config{CertificateLife: time.Hour, RenewGrace: 2 * time.Hour}, Deps{
		Store: f.db, Own: own, Log: log, Registry: f.reg, Now: f.clock,
		Addresses: func() ([]string, error) { return []string{"127.0.0.1:7420"}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// restart closes the database and opens it again.
func (f *fleet) restart(t *testing.T) {
	t.Helper()
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

// memory is a State for one goroutine.
type memory map[string][]byte

func (m memory) Get(_ context.Context, key string) ([]byte, uint64, error) {
	if v, ok := m[key]; ok {
		return v, 1, nil
	}
	return nil, 0, nil
}

func (m memory) CompareAndSwap(_ context.Context, key string, _ uint64, value []byte) (uint64, error) {
	if value == nil {
		delete(m, key)
		return 0, nil
	}
	m[key] = value
	return 1, nil
}

func (m memory) List(_ context.Context, from, to string, f func(string, []byte, uint64) error) error {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k < from || k >= to {
			continue
		}
		if err := f(k, m[k], 1); err != nil {
			return err
		}
	}
	return nil
}

// token makes a token.
func (f *fleet) token(t *testing.T, q *httpctlv1.CreateTokenRequest) authority.Token {
	t.Helper()
	a, err := f.CreateToken(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	made, err := authority.ParseToken(a.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := authority.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// from is a context of a call from an address.
func from(t *testing.T, ip string) context.Context {
	return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}})
}

func (f *fleet) ask(t *testing.T, made authority.Token, id bucket.ID, request []byte) (*x509.Certificate, error) {
	t.Helper()
	a, err := f.Enroll(from(t, "192.0.2.1"), &httpctlv1.EnrollRequest{TokenId: made.ID, Secret: made.Secret, Csr: request, HostId: id[:], HostName: "web1"})
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(a.GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	return c, nil
}

// left returns how many uses a token has left, -1 if it is not listed.
func (f *fleet) left(t *testing.T, made authority.Token) int {
	t.Helper()
	a, err := f.ListTokens(t.Context(), &httpctlv1.ListTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range a.GetTokens() {
		if i.GetId() == made.ID {
			return int(i.GetUsesLeft())
		}
	}
	return -1
}

// value reads a counter from the registry, of that reason if it has one.
func (f *fleet) value(name, reason string) float64 {
	families, err := f.reg.Gather()
	if err != nil {
		return -1
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (reason == "" || m.GetLabel()[0].GetValue() == reason) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func (f *fleet) refusals(reason string) float64 {
	return f.value("httpctl_enroll_refused_total", reason)
}
