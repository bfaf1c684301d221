package authority

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
)

// MaxRequest bounds a certificate signing request. One of a P-256 key takes 0.3 KB.
const MaxRequest = 4 << 10

// NewRequest makes a certificate signing request (PKCS #10, DER) of a key.
func NewRequest(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "httpctl"}}, key)
}

// RequestedKey returns the key of a request whose sender has its private half. Whatever else is asked
// for in it is not looked at.
func RequestedKey(der []byte) (crypto.PublicKey, error) {
	if len(der) == 0 || len(der) > MaxRequest {
		return nil, fmt.Errorf("a certificate signing request of %d bytes; want 1 to %d", len(der), MaxRequest)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errors.New("the certificate signing request cannot be read")
	}
	if err := CheckKey(r.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate signing request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, errors.New("the certificate signing request is not signed by its key")
	}
	return r.PublicKey, nil
}
