package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates writes into a new directory a certificate authority (ca.pem)
// and for each name a key pair that it signed (NAME.pem, NAME.key), good for
// client and server, for the name itself and the address given with it.
func Certificates(t testing.TB, names map[string]netip.Addr) (dir string) {
	t.Helper()
	return certificates(t, names, nil, time.Now().Add(time.Hour))
}

// NamedCertificates is Certificates with the URIs that some of the names carry.
func NamedCertificates(t testing.TB, names map[string]netip.Addr, uris map[string]string) (dir string) {
	t.Helper()
	for name := range uris {
		if _, ok := names[name]; !ok {
			t.Fatalf("%s has a URI and is not among the names", name)
		}
	}
	return certificates(t, names, uris, time.Now().Add(time.Hour))
}

// ExpiredCertificates is Certificates whose key pairs have expired; the authority has not.
func ExpiredCertificates(t testing.TB, names map[string]netip.Addr) (dir string) {
	t.Helper()
	return certificates(t, names, nil, time.Now().Add(-time.Minute))
}

func certificates(t testing.TB, names map[string]netip.Addr, uris map[string]string, until time.Time) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) {
		t.Helper()
		must(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "httpctl test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	write("ca.pem", "CERTIFICATE", der)

	serial := int64(2)
	for name, addr := range names {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: ca.NotBefore, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}
		if addr.IsValid() {
			leaf.IPAddresses = []net.IP{addr.AsSlice()}
		}
		if text, ok := uris[name]; ok {
			u, err := url.Parse(text)
			must(err)
			leaf.URIs = []*url.URL{u}
		}
		serial++
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		must(err)
		write(name+".pem", "CERTIFICATE", der)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		must(err)
		write(name+".key", "PRIVATE KEY", keyDER)
	}
	return dir
}
