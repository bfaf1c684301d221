package authority

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ServerName is the name that a host asks for when it comes for a certificate: it may
// come without one then, or with one that has ended. The aggregator's own name is checked all the same.
const ServerName = "enroll.httpctl.invalid"

// ErrOtherAuthority is wrapped by the error about an aggregator of another authority.
var ErrOtherAuthority = errors.New("what answers there is not the aggregator that the token is for")

// Pinned returns the settings of a connection to an aggregator of which only the fingerprint of its authority
// is known. host is its name or address.
func Pinned(f Fingerprint, host string) *tls.Config {
	return connecting(host, func(shown []*x509.Certificate) (*x509.CertPool, error) {
		for _, c := range shown[1:] {
			if FingerprintOf(c) == f && c.IsCA {
				roots := x509.NewCertPool()
				roots.AddCert(c)
				return roots, nil
			}
		}
		return nil, fmt.Errorf("%w: it shows no authority with the fingerprint %s", ErrOtherAuthority, f)
	})
}

// Known returns the settings of a connection to an aggregator whose authorities are known. host is
// its name or address, cert what is shown to it.
func Known(roots *x509.CertPool, host string, cert tls.Certificate) *tls.Config {
	c := connecting(host, func([]*x509.Certificate) (*x509.CertPool, error) { return roots, nil })
	// Always this one, whatever the aggregator says that it takes.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return c
}

// connecting returns settings in which the name that is asked for is not the one that is checked.
func connecting(host string, roots func(shown []*x509.Certificate) (*x509.CertPool, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		NextProtos: []string{"h2"},
		// Not skipped, but done below: it is the other name that counts.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("it shows no certificate")
			}
			pool, err := roots(s.PeerCertificates)
			if err != nil {
				return err
			}
			return checkAggregator(s.PeerCertificates[0], pool, host, time.Now())
		},
	}
}

// checkAggregator says whether a certificate is that of an aggregator of the authorities, under the name by which it was called.
func checkAggregator(leaf *x509.Certificate, roots *x509.CertPool, host string, now time.Time) error {
	const layout = time.RFC3339
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("the aggregator's certificate is valid from %s to %s, and by this host's clock it is %s: set the clocks right",
			leaf.NotBefore.UTC().Format(layout), leaf.NotAfter.UTC().Format(layout), now.UTC().Format(layout))
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("what answers there is not the aggregator of this fleet: %w", err)
	}
	if role, _, err := Identity(leaf); err != nil || role != Aggregator {
		return errors.New("what answers there is not an aggregator, as its certificate says")
	}
	if leaf.VerifyHostname(strings.Trim(host, "[]")) != nil {
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Errorf("the aggregator is called %s, and not %s: name it in httpctl ca init --name on its host", strings.Join(names, ", "), host)
	}
	return nil
}
