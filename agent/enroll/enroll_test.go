package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var host = Host{ID: bucket.ID{0xa}, Name: "web1", Version: "test"}

// center is an aggregator that signs what comes, unless the test says otherwise.
type center struct {
	httpctlv1.UnimplementedEnrollServiceServer
	ca      *authority.Authority
	token   authority.Token
	enrolls atomic.Int32
	renews  atomic.Int32

	mu     sync.Mutex
	fail   func(call int32) error                                       // nil: none does
	signs  func(csr []byte, id bucket.ID) (cert, cas []byte, err error) // nil: as it should
	secret []byte                                                       // the last that came
}

func (c *center) sign(csr []byte, id bucket.ID) ([]byte, []byte, error) {
	pub, err := authority.RequestedKey(csr)
	if err != nil {
		return nil, nil, err
	}
	der, err := c.ca.Sign(pub, authority.Subject{Role: authority.Agent, Name: id.String()}, time.Hour, time.Now())
	return der, c.ca.PEM(), err
}

func (c *center) answer(call int32, csr []byte, id bucket.ID) (cert, cas []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(call); err != nil {
			return nil, nil, err
		}
	}
	if c.signs != nil {
		return c.signs(csr, id)
	}
	return c.sign(csr, id)
}

func (c *center) Enroll(_ context.Context, q *httpctlv1.EnrollRequest) (*httpctlv1.EnrollResponse, error) {
	c.mu.Lock()
	c.secret = q.GetSecret()
	c.mu.Unlock()
	cert, cas, err := c.answer(c.enrolls.Add(1), q.GetCsr(), bucket.ID(q.GetHostId()))
	return &httpctlv1.EnrollResponse{Certificate: cert, Authorities: cas}, err
}

func (c *center) Renew(_ context.Context, q *httpctlv1.RenewRequest) (*httpctlv1.RenewResponse, error) {
	cert, cas, err := c.answer(c.renews.Add(1), q.GetCsr(), host.ID)
	return &httpctlv1.RenewResponse{Certificate: cert, Authorities: cas}, err
}

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	ca, err := authority.Create(filepath.Join(t.TempDir(), "ca"), authority.DefaultTrustDomain, authority.Owner{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newCenter serves an aggregator on loopback.
func newCenter(t *testing.T) *center {
	t.Helper()
	c := &center{ca: newAuthority(t)}
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := c.ca.Sign(key.Public(), authority.Subject{Role: authority.Aggregator, Name: "main", Hosts: []string{"127.0.0.1"}}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der, c.ca.Certificate().Raw}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert,
	})))
	httpctlv1.RegisterEnrollServiceServer(server, c)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); served.Wait() })
	if c.token, err = authority.NewToken(c.ca.Fingerprint(), []string{l.Addr().String()}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEnroll(t *testing.T) {
	c := newCenter(t)
	f := In(t.TempDir())
	if f.Exist() || f.Aggregator() != "" {
		t.Error("a host is enrolled before it was")
	}
	r, err := f.Enroll(t.Context(), c.token, host, authority.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://httpctl.internal/agent/" + host.ID.String(); r.Identity != want || r.Already || r.Aggregator != c.token.Addresses[0] {
		t.Errorf("Enroll() = %+v, want %s at %s", r, want, c.token.Addresses[0])
	}
	if !f.Exist() || f.Aggregator() != c.token.Addresses[0] || !f.Are(f.TLS()) {
		t.Error("an enrolled host does not find its files")
	}
	if _, err := f.TLS().Leaf(); err != nil {
		t.Errorf("the files cannot be used: %v", err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, pairFile: 0o600, caFile: 0o600, aggregatorFile: 0o600} {
		if fi, err := os.Stat(filepath.Join(f.dir, name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("mode of %q = %v, %v, want %v", name, fi.Mode(), err, mode)
		}
	}
	if entries, _ := os.ReadDir(f.dir); len(entries) != 3 {
		t.Errorf("%v were written, want three files", entries)
	}
	if got := f.Already(c.token); got == nil || !got.Already || got.Identity != r.Identity || !got.Until.Equal(r.Until) {
		t.Errorf("Already() = %+v, want what it is", got)
	}
	other := c.token
	other.Authority[0] ^= 1
	if got := f.Already(other); got != nil {
		t.Errorf("Already() with another authority = %+v, want nil", got)
	}
}

// TestEnrollFails: what goes wrong is said, nothing is kept, and who is not the aggregator does not see the token.
func TestEnrollFails(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *center)
		want   string
		asked  int32
	}{
		"refused": {func(c *center) {
			c.fail = func(int32) error { return status.Error(codes.PermissionDenied, "used\x1b[2J up") }
		}, `used\x1b[2J up`, 1},
		"no service": {func(c *center) { c.fail = func(int32) error { return status.Error(codes.Unimplemented, "no") } }, "too old", 1},
		"always away": {func(c *center) {
			c.fail = func(int32) error { return status.Error(codes.Unavailable, "the disk is full") }
		}, "the disk is full", tries},
		"an ended token":     {func(c *center) { c.token.Expires = time.Now().Add(-time.Minute) }, "make another with httpctl enroll create, or set the clock", 0},
		"another aggregator": {func(c *center) { c.token.Authority[5] ^= 1 }, "not the aggregator that the token is for", 0},
		"another name": {func(c *center) {
			c.token.Addresses[0] = strings.Replace(c.token.Addresses[0], "127.0.0.1", "localhost", 1)
		}, "httpctl ca init --name", 0},
		"nobody there":                 {func(c *center) { c.token.Addresses = []string{"127.0.0.1:1"} }, "nothing listens there", 0},
		"nobody there under that name": {func(c *center) { c.token.Addresses = []string{"127.0.0.1:1"} }, "httpctl enroll create --address", 0},
		"a certificate of another host": {func(c *center) {
			c.signs = func(csr []byte, _ bucket.ID) ([]byte, []byte, error) { return c.sign(csr, bucket.ID{0xb}) }
		}, "another host or key", 1},
		"a certificate of another key": {func(c *center) {
			c.signs = func(_ []byte, id bucket.ID) ([]byte, []byte, error) {
				key, _ := authority.NewKey()
				csr, _ := authority.NewRequest(key)
				return c.sign(csr, id)
			}
		}, "another host or key", 1},
		"a certificate of nobody": {func(c *center) {
			c.signs = func(csr []byte, id bucket.ID) ([]byte, []byte, error) {
				der, _, err := c.sign(csr, id)
				return der, newAuthority(t).PEM(), err
			}
		}, "unknown authority", 1},
		"noise": {func(c *center) {
			c.signs = func([]byte, bucket.ID) ([]byte, []byte, error) { return []byte("noise"), nil, nil }
		}, "cannot be used", 1},
	} {
		t.Run(name, func(t *testing.T) {
			center := newCenter(t)
			c.change(center)
			state := t.TempDir()
			_, err := In(state).Enroll(t.Context(), center.token, host, authority.Owner{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Enroll() = %v, want %q", err, c.want)
			}
			if got := center.enrolls.Load(); got != c.asked {
				t.Errorf("asked %d times, want %d", got, c.asked)
			}
			if center.secret != nil && c.asked == 0 {
				t.Error("the secret was sent")
			}
			if entries, _ := os.ReadDir(state); len(entries) != 0 {
				t.Errorf("%v were left", entries)
			}
		})
	}
}

// TestEnrollFollowsNoLink: the folder is in the agent's user's directory, and root writes there.
func TestEnrollFollowsNoLink(t *testing.T) {
	c := newCenter(t)
	elsewhere := t.TempDir()
	for name, target := range map[string]string{"elsewhere": elsewhere, "beside it": "../" + filepath.Base(elsewhere), "within": "own"} {
		state := t.TempDir()
		own := filepath.Join(state, "own")
		if err := errors.Join(os.Mkdir(own, 0o700), os.Symlink(target, filepath.Join(state, folder))); err != nil {
			t.Fatal(err)
		}
		if _, err := In(state).Enroll(t.Context(), c.token, host, authority.Owner{}); err == nil || !strings.Contains(err.Error(), filepath.Join(state, folder)+" is not a directory") {
			t.Errorf("Enroll() with a link %s = %v, want it refused", name, err)
		}
		for _, dir := range []string{elsewhere, own} {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
				t.Errorf("with a link %s, %v were written, %v", name, entries, err)
			}
		}
	}
}

// TestTaken: that the aggregator has the host already is told from every other failure.
func TestTaken(t *testing.T) {
	c := newCenter(t)
	for code, want := range map[codes.Code]bool{codes.AlreadyExists: true, codes.PermissionDenied: false, codes.Unavailable: false} {
		c.mu.Lock()
		c.fail = func(int32) error { return status.Error(code, "no") }
		c.mu.Unlock()
		_, err := In(t.TempDir()).Enroll(t.Context(), c.token, host, authority.Owner{})
		if got := Taken(err); err == nil || got != want {
			t.Errorf("Taken(%v) = %v, want %v", err, got, want)
		}
	}
}

// TestEnrollGoesOn: an answer that is lost is asked for again, and of several addresses the first that answers counts.
func TestEnrollGoesOn(t *testing.T) {
	c := newCenter(t)
	var keys [][]byte
	c.signs = func(csr []byte, id bucket.ID) ([]byte, []byte, error) {
		keys = append(keys, csr)
		return c.sign(csr, id)
	}
	c.fail = func(call int32) error {
		if call == 1 {
			return status.Error(codes.Unavailable, "lost")
		}
		return nil
	}
	there := c.token.Addresses[0]
	c.token.Addresses = []string{"127.0.0.1:1", there}
	r, err := In(t.TempDir()).Enroll(t.Context(), c.token, host, authority.Owner{})
	if err != nil || r.Aggregator != there {
		t.Errorf("Enroll() = %+v, %v, want at %s", r, err, there)
	}
	if got := c.enrolls.Load(); got != 2 {
		t.Errorf("asked %d times, want 2", got)
	}
}

// TestRenew: a new key each time, the authorities too, and what fails changes nothing.
func TestRenew(t *testing.T) {
	c := newCenter(t)
	f := In(t.TempDir())
	if _, err := f.Enroll(t.Context(), c.token, host, authority.Owner{}); err != nil {
		t.Fatal(err)
	}
	r := NewRenewer(f, host.ID, Deps{Aggregator: c.token.Addresses[0]})
	renew := func() error {
		t.Helper()
		cert, cas, err := f.read()
		if err != nil {
			t.Fatal(err)
		}
		return r.renew(t.Context(), cert, cas)
	}
	files := func() string {
		t.Helper()
		pair, err := os.ReadFile(filepath.Join(f.dir, pairFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(pair)
	}
	before := files()
	for name, fail := range map[string]func(csr []byte, id bucket.ID) ([]byte, []byte, error){
		"refused": func([]byte, bucket.ID) ([]byte, []byte, error) {
			return nil, nil, status.Error(codes.PermissionDenied, "no")
		},
		"of another host": func(csr []byte, _ bucket.ID) ([]byte, []byte, error) { return c.sign(csr, bucket.ID{9}) },
		"of another authority": func(csr []byte, id bucket.ID) ([]byte, []byte, error) {
			der, _, err := c.sign(csr, id)
			return der, newAuthority(t).PEM(), err
		},
	} {
		c.mu.Lock()
		c.signs = fail
		c.mu.Unlock()
		if err := renew(); err == nil {
			t.Errorf("renew with a certificate that is %s = nil", name)
		}
		if files() != before {
			t.Errorf("renew with a certificate that is %s has changed the files", name)
		}
	}
	c.mu.Lock()
	c.signs = nil
	c.mu.Unlock()
	was, _, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	is, _, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	if was.Leaf.SerialNumber.Cmp(is.Leaf.SerialNumber) == 0 || string(was.Leaf.RawSubjectPublicKeyInfo) == string(is.Leaf.RawSubjectPublicKeyInfo) {
		t.Error("the renewed certificate is of the same key, or the same one")
	}
	if f.Aggregator() != c.token.Addresses[0] {
		t.Errorf("after a renewal the aggregator is %q", f.Aggregator())
	}
}

// TestRenewAt: from two thirds of the life on, and at most a tenth of it later.
func TestRenewAt(t *testing.T) {
	c := newCenter(t)
	f := In(t.TempDir())
	if _, err := f.Enroll(t.Context(), c.token, host, authority.Owner{}); err != nil {
		t.Fatal(err)
	}
	cert, _, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	least, most := cert.Leaf.NotAfter, time.Time{}
	for range 1000 {
		at := renewAt(cert.Leaf)
		if at.Before(least) {
			least = at
		}
		if at.After(most) {
			most = at
		}
	}
	end := cert.Leaf.NotAfter
	if left := end.Sub(least); left > 20*time.Minute || left < 19*time.Minute {
		t.Errorf("the first renews %s before the end of an hour, want 20m", left)
	}
	if left := end.Sub(most); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("the last renews %s before the end of an hour, want 14m", left)
	}
}
