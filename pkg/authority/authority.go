// Package authority is the certificate authority of a fleet: its files, what it
// signs, and what agents and aggregator agree on to enrol a host. It is for
// who has no authority of their own; docs/operations.md says how it is used, docs/formats.md
// what is in its files.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Skew is how far clocks may be apart: certificates are valid from so long before they were signed.
	Skew = 5 * time.Minute
	// caLife is how long the authority's own certificate is valid.
	caLife = 10 * 365 * 24 * time.Hour
	// DefaultTrustDomain is the trust domain of an authority unless it is given another.
	DefaultTrustDomain = "httpctl.internal"

	certFile  = "ca.pem"
	keyFile   = "ca.key"
	namesFile = "names"
)

// ErrExists is returned by Create when there is an authority already.
var ErrExists = errors.New("there is an authority already")

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	roots *x509.CertPool
	pem   []byte // the authority's file, which others are given
	hash  [sha256.Size]byte
}

// Dir returns where an aggregator whose data directory is data keeps its authority.
func Dir(data string) string { return filepath.Join(data, "ca") }

// Paths returns the files of the authority in a directory, that of the certificates and that of the key.
func Paths(dir string) [2]string {
	return [2]string{filepath.Join(dir, certFile), filepath.Join(dir, keyFile)}
}

// Exists reports whether there is an authority in a directory, as far as this user can see.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, certFile))
	return err == nil
}

// Create makes an authority with a new key in dir, which must not be there yet: it
// appears with all that is in it, or not at all. The files belong to owner, see [Give].
func Create(dir, trustDomain string, owner Owner, now time.Time) (*Authority, error) {
	if err := checkTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := newPair(trustDomain, now)
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".ca-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) // what is left of it, when something failed
	for _, f := range []struct {
		name string
		pem  []byte
		mode fs.FileMode
	}{{keyFile, keyPEM, 0o600}, {certFile, certPEM, 0o644}} {
		if err := WriteFile(filepath.Join(temp, f.name), f.pem, f.mode, owner); err != nil {
			return nil, err
		}
	}
	if err := give(temp, 0o755, owner); err != nil {
		return nil, err
	}
	if err := os.Rename(temp, dir); errors.Is(err, fs.ErrExist) || Exists(dir) && err != nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrExists)
	} else if err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	return Open(dir)
}

// newPair makes a key, and the certificate of an authority for it, in PEM.
func newPair(trustDomain string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		// The fingerprint of the key tells apart what has the same name.
		Subject:   pkix.Name{CommonName: "httpctl fleet " + trustDomain + " " + keyName(&key.PublicKey)},
		NotBefore: now.Add(-Skew), NotAfter: now.Add(caLife),
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return EncodeCertificate(der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// give sets the mode and owner of a directory.
func give(dir string, mode fs.FileMode, owner Owner) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Chmod(mode), owner.Give(d), d.Close())
}

// keyName is a short name of a key.
func keyName(pub crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:4])
}

// Open reads the authority of a directory. A key that everyone may read is refused.
func Open(dir string) (*Authority, error) {
	path := filepath.Join(dir, keyFile)
	fail := func(err error) (*Authority, error) { return nil, fmt.Errorf("read the authority: %w", err) }
	fi, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: only the aggregator's user and root may use it", err)
		}
		return fail(err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		return fail(fmt.Errorf("%s has mode %04o, so that everyone on this host can be any member of the fleet: chmod 600 it, and if others may have read it make a new authority", path, fi.Mode().Perm()))
	}
	keyPEM, err := os.ReadFile(path)
	if err != nil {
		return fail(err)
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, certFile))
	if err != nil {
		return fail(err)
	}
	a, err := parse(certPEM, keyPEM)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", dir, err))
	}
	return a, nil
}

func parse(certPEM, keyPEM []byte) (*Authority, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	cert := certificateOf(certs, key)
	if cert == nil {
		return nil, fmt.Errorf("%s is not the key of a certificate in %s", keyFile, certFile)
	}
	a := &Authority{cert: cert, key: key, roots: x509.NewCertPool(), pem: certPEM, hash: sha256.Sum256(cert.Raw)}
	if !a.cert.IsCA {
		return nil, fmt.Errorf("%s: the certificate of %s is not one of an authority", certFile, keyFile)
	}
	if TrustDomain(a.cert) == "" {
		return nil, fmt.Errorf("%s: the certificate of %s does not name a trust domain (spiffe://DOMAIN)", certFile, keyFile)
	}
	for _, c := range certs {
		a.roots.AddCert(c)
	}
	return a, nil
}

// ParseCertificates reads one or more certificates in PEM.
func ParseCertificates(data []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM in it")
	}
	return certs, nil
}

// Certificate returns the certificate with which a signs.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM returns the file that others are given, to know whom a signs for.
func (a *Authority) PEM() []byte { return a.pem }

// Roots returns the certificates in it.
func (a *Authority) Roots() *x509.CertPool { return a.roots }

// TrustDomain returns the trust domain of what a signs.
func (a *Authority) TrustDomain() string { return TrustDomain(a.cert) }

// Fingerprint returns the SHA-256 hash of the authority's certificate.
func (a *Authority) Fingerprint() Fingerprint { return a.hash }

// Fingerprint is the SHA-256 hash of a certificate.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// String writes it as openssl does.
func (f Fingerprint) String() string {
	parts := make([]string, len(f))
	for i, b := range f {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// Subject is whom a certificate is for.
type Subject struct {
	Role Role
	// Name is the host id of an agent in hex, or what a person or an aggregator is called.
	Name string
	// Hosts are the names and addresses by which an aggregator is reached.
	Hosts []string
}

// Sign makes a certificate of a public key, valid for life from now on, but not longer than the
// authority itself, and from [Skew] before. It returns its DER form.
func (a *Authority) Sign(pub crypto.PublicKey, s Subject, life time.Duration, now time.Time) ([]byte, error) {
	if err := CheckKey(pub); err != nil {
		return nil, err
	}
	id, err := identity(a.TrustDomain(), s.Role, s.Name)
	if err != nil {
		return nil, err
	}
	until := now.Add(life)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	if !now.Before(until) {
		return nil, fmt.Errorf("the authority's own certificate has ended at %s, or the clock is wrong: see docs/operations.md for a new authority", a.cert.NotAfter.Format(time.RFC3339))
	}
	if now.Before(a.cert.NotBefore) {
		return nil, fmt.Errorf("the authority was made at %s, which the clock says is still to come: set the clock", a.cert.NotBefore.Add(Skew).Format(time.RFC3339))
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: string(s.Role) + " " + s.Name},
		NotBefore: now.Add(-Skew), NotAfter: until,
		URIs: []*url.URL{id}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature,
		// An agent's or reader's must not do for an aggregator.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if s.Role == Aggregator {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, h := range s.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
}

// CheckKey says whether a public key is of a kind that is signed: ECDSA P-256 or P-384, or Ed25519.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("its key is none of ECDSA P-256, ECDSA P-384 and Ed25519")
}

// NewKey makes a key for whom the authority signs.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// EncodePair puts a key and the certificates of its DER forms into one PEM file: replaced in one
// step, they always belong together.
func EncodePair(key crypto.Signer, certs ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range certs {
		out = append(out, EncodeCertificate(c)...)
	}
	return out, nil
}

// EncodeCertificate returns a certificate in PEM.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// RenewAt returns when two thirds of a certificate's life are over.
func RenewAt(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore.Add(Skew))
	return c.NotAfter.Add(-life / 3)
}
