package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/httpctl/httpctl/pkg/authority"
)

// Own is the certificate that the aggregator shows, made by its own authority. Its key is in memory
// only. It is made anew when two thirds of its life are over, when the aggregator has
// other names, when another authority signs, and when the clock was set behind its beginning. It is safe for concurrent use.
type Own struct {
	dir    string // of the authority
	domain string // its trust domain, which stays
	now    func() time.Time
	log    *slog.Logger
	verify func(tls.ConnectionState) error

	mu        sync.Mutex
	life      time.Duration // of the next certificate
	authority *authority.Authority
	files     [2]stamp // of its files, when it was read
	cert      tls.Certificate
	by        authority.Fingerprint // of the authority that signed it
	read      stamp                 // of the file with the names
	told      time.Time             // when it was last logged that none can be made
}

// stamp tells whether a file changed.
type stamp struct {
	modified time.Time
	size     int64
}

// always are names by which the aggregator is reached on its own host and through forwarders.
var always = []string{"localhost", "127.0.0.1", "::1"}

// stampOf returns the zero value for a file that cannot be looked at.
func stampOf(path string) stamp {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{fi.ModTime(), fi.Size()}
}

// NewOwn makes the first certificate, of the authority that was read from dir.
func NewOwn(a *authority.Authority, dir string, life time.Duration, now func() time.Time, log *slog.Logger) (*Own, error) {
	o := &Own{authority: a, domain: a.TrustDomain(), dir: dir, life: life, now: now, log: log}
	if _, _, err := o.current(); err != nil {
		return nil, err
	}
	o.keepLife()
	return o, nil
}

// setLife changes how long certificates live, for the next one.
func (o *Own) setLife(life time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.life = life
	o.keepLife()
}

// keepLife tells httpctl ca rotate how long certificates live. The caller holds mu, or nobody else has o.
func (o *Own) keepLife() {
	if err := authority.WriteLife(o.dir, o.life, authority.OwnerOf(o.dir), o.now()); err != nil {
		o.log.Error("how long certificates live cannot be kept beside the authority: httpctl ca rotate has to be told with --wait", "err", err)
	}
}

// Authority returns the authority as its files are now; when they cannot be read, as they were.
func (o *Own) Authority() *authority.Authority {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reload()
	return o.authority
}

// reload reads the authority's files again if one has changed, as httpctl ca rotate does. The caller holds mu.
func (o *Own) reload() {
	var files [2]stamp
	for i, path := range authority.Paths(o.dir) {
		files[i] = stampOf(path)
	}
	if files == o.files {
		return
	}
	a, err := authority.Open(o.dir)
	if err == nil && a.TrustDomain() != o.domain {
		err = fmt.Errorf("the trust domain is now %s, and not %s: that takes a restart", a.TrustDomain(), o.domain)
	}
	if err != nil {
		if now := o.now(); now.Sub(o.told).Abs() >= logEvery {
			o.told = now
			o.log.Error("the authority's files have changed and cannot be used; it goes on as it was", "err", err)
		}
		return
	}
	if o.files != ([2]stamp{}) {
		o.log.Info("the authority's files have changed", "signs", a.Fingerprint(), "accepted", len(a.Accepted()))
	}
	o.authority, o.files = a, files
}

// current returns the certificate in force, and the authority. When a new one cannot be made, the old one stays.
func (o *Own) current() (tls.Certificate, *authority.Authority, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	o.reload()
	names := stampOf(authority.NamesPath(o.dir))
	have := o.cert.Leaf != nil
	if have && names == o.read && o.by == o.authority.Fingerprint() && now.Before(authority.RenewAt(o.cert.Leaf)) && now.After(o.cert.Leaf.NotBefore) {
		return o.cert, o.authority, nil
	}
	cert, err := o.make(now)
	switch {
	case err == nil:
		o.cert, o.read, o.by = cert, names, o.authority.Fingerprint()
	case !have:
		return tls.Certificate{}, nil, err
	case now.Sub(o.told).Abs() >= logEvery:
		o.told = now
		o.log.Error("the aggregator cannot make itself a new certificate, and goes on with the one it has", "until", o.cert.Leaf.NotAfter, "err", err)
	}
	return o.cert, o.authority, nil
}

func (o *Own) make(now time.Time) (tls.Certificate, error) {
	hosts, err := authority.Names(o.dir)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := authority.NewKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	name := "main"
	if authority.CheckName(hosts[0]) == nil {
		name = hosts[0]
	}
	der, err := o.authority.Sign(key.Public(), authority.Subject{Role: authority.Aggregator, Name: name, Hosts: append(hosts, always...)}, o.life, now)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	// With the authority's own, which a new host knows by its fingerprint only.
	return tls.Certificate{Certificate: [][]byte{der, o.authority.Certificate().Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// TrustDomain returns the trust domain of the certificate.
func (o *Own) TrustDomain() string { return o.domain }

// NotAfter returns when the certificate in force ends.
func (o *Own) NotAfter() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cert.Leaf.NotAfter
}

// SetVerify has the last word on each connection whose certificate is verified. Call it before Credentials.
func (o *Own) SetVerify(f func(tls.ConnectionState) error) { o.verify = f }

// Credentials returns the transport security of a server: mutual TLS with the certificate in
// force when a client connects. Who asks for [authority.ServerName] comes for a certificate: it may show
// none, or one that has ended, which is then not verified and gives no right to anything but that.
func (o *Own) Credentials() credentials.TransportCredentials {
	return credentials.NewTLS(o.config(true, "h2"))
}

// ServerConfig returns mutual TLS with the certificate in force when a client connects, for a server of the protocols
// (ALPN), at which nobody comes for a certificate.
func (o *Own) ServerConfig(protocols ...string) *tls.Config { return o.config(false, protocols...) }

func (o *Own) config(door bool, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cert, ca, err := o.current()
			if err != nil {
				return nil, err
			}
			c := &tls.Config{
				Time:         o.now,
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{cert},
				ClientCAs:    ca.Roots(),
				ClientAuth:   tls.RequireAndVerifyClientCert,
				NextProtos:   protocols,

				VerifyConnection: o.verify,
				// A session of before would not be asked for its certificate again.
				SessionTicketsDisabled: true,
			}
			if door && hello.ServerName == authority.ServerName {
				c.ClientAuth, c.VerifyConnection = tls.RequestClientCert, nil
			}
			return c, nil
		},
	}
}
