package authority

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// nextKeyFile is the key of the authority that is to sign next. Its certificate is in certFile already.
const nextKeyFile = "ca.key.next"

// oldFile is the certificate of the authority that signed before, from when another one signs until it is accepted no more.
const oldFile = "ca.pem.old"

// Step is one of the three in which an authority is replaced by a new one, so that nobody is left out: between
// two of them every member renews its certificate, with which it is told the authorities.
type Step int

const (
	// Begun: there is a new authority. Its certificates are accepted, the old one signs.
	Begun Step = iota + 1
	// Switched: the new one signs. Certificates of the old one are accepted, its key is gone.
	Switched
	// Ended: certificates of the old one are accepted no more.
	Ended
)

// TooSoon is the error that members may not have renewed yet since the step before.
type TooSoon struct{ Since, Until time.Time }

func (e *TooSoon) Error() string {
	return fmt.Sprintf("the step before was at %s, and hosts have until %s to renew their certificates",
		e.Since.UTC().Format(time.RFC3339), e.Until.UTC().Format(time.RFC3339))
}

// Rotate does the next step of replacing the authority in dir by one with a new key, in the same trust domain. What
// counts of a step changes in one go, so an authority whose rotation is killed works on, and the step is done again. life is how long
// certificates live, in which members renew: the next step before all have lived out is a *TooSoon. With nil it is what the aggregator keeps in dir, see
// [ReadLife]. An aggregator that runs takes each step over with the next connection.
func Rotate(dir string, owner Owner, now time.Time, life *Life) (Step, error) {
	a, err := Open(dir)
	if err != nil {
		return 0, err
	}
	certs, err := ParseCertificates(a.pem)
	if err != nil {
		return 0, err
	}
	nextPEM, err := os.ReadFile(filepath.Join(dir, nextKeyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var next *x509.Certificate
	if nextPEM != nil {
		key, err := parseKey(nextPEM)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", nextKeyFile, err)
		}
		next = certificateOf(certs, key)
	}
	if next != nil && next.Equal(a.cert) { // killed after it was switched
		if err := os.Remove(filepath.Join(dir, nextKeyFile)); err != nil {
			return 0, err
		}
		next = nil
	}
	oldPEM, err := os.ReadFile(filepath.Join(dir, oldFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var replaced []*x509.Certificate
	if oldPEM != nil {
		if replaced, err = ParseCertificates(oldPEM); err != nil {
			return 0, fmt.Errorf("%s: %w", oldFile, err)
		}
	}
	var kept []byte
	old := 0
	for _, c := range certs {
		if c.Equal(a.cert) || !slices.ContainsFunc(replaced, c.Equal) { // another one is there for another reason
			kept = append(kept, EncodeCertificate(c.Raw)...)
		} else {
			old++
		}
	}
	soon := func(file string) error {
		fi, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		l := life
		if l == nil {
			kept, err := ReadLife(dir)
			if err != nil {
				return err
			}
			l = &kept
		}
		if until := l.Out(fi.ModTime()); now.Before(until) {
			return &TooSoon{fi.ModTime(), until}
		}
		return nil
	}
	switch {
	case next != nil:
		if err := soon(certFile); err != nil {
			return 0, err
		}
		if err := WriteFile(filepath.Join(dir, oldFile), EncodeCertificate(a.cert.Raw), 0o644, owner); err != nil {
			return 0, err
		}
		if err := WriteFile(filepath.Join(dir, keyFile), nextPEM, 0o600, owner); err != nil {
			return 0, err
		}
		return Switched, os.Remove(filepath.Join(dir, nextKeyFile))
	case old > 0:
		if err := soon(keyFile); err != nil {
			return 0, err
		}
		if err := WriteFile(filepath.Join(dir, certFile), kept, 0o644, owner); err != nil {
			return 0, err
		}
		return Ended, os.Remove(filepath.Join(dir, oldFile))
	}
	cert, key, err := newPair(a.TrustDomain(), now)
	if err != nil {
		return 0, err
	}
	if err := WriteFile(filepath.Join(dir, nextKeyFile), key, 0o600, owner); err != nil {
		return 0, err
	}
	all := append(bytes.TrimRight(bytes.Clone(a.pem), "\n"), '\n')
	return Begun, WriteFile(filepath.Join(dir, certFile), append(all, cert...), 0o644, owner)
}

// Accepted returns the certificates of the authorities that are accepted, that of the one which signs among them.
func (a *Authority) Accepted() []*x509.Certificate {
	certs, _ := ParseCertificates(a.pem) // they were parsed before
	return certs
}

// parseKey reads a private key.
func parseKey(keyPEM []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("no key in PEM in it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", parsed)
	}
	return key, nil
}

// certificateOf returns the certificate of a key, nil if it is not among certs.
func certificateOf(certs []*x509.Certificate, key crypto.Signer) *x509.Certificate {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	for _, c := range certs {
		if ok && pub.Equal(c.PublicKey) {
			return c
		}
	}
	return nil
}
