package security

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS names the files of mutual TLS. Both ends show a certificate and check the other's
// against the same kind of authority. The zero value is plain text, which only
// local addresses allow (see [CheckAddress]). TLS 1.3 is the lowest version.
type TLS struct {
	// CertFile holds this program's certificate in PEM, followed by any intermediate ones.
	CertFile string `yaml:"cert_file"`
	// KeyFile holds the private key of the certificate in PEM; it should be readable by this
	// program's user only.
	KeyFile string `yaml:"key_file"`
	// CAFile holds in PEM the authorities that sign the other end's certificates. The system's
	// authorities are never used: whoever they sign for is not a member of this fleet.
	CAFile string `yaml:"ca_file"`
	// ServerName is the name that the aggregator's certificate must carry; default: the host of
	// its address. Set it on agents that reach the aggregator by an IP address or through a
	// forwarder. Aggregators ignore it.
	ServerName string `yaml:"server_name"`
}

// IsZero reports whether no file is set: plain text.
func (t TLS) IsZero() bool { return t.CertFile == "" && t.KeyFile == "" && t.CAFile == "" }

// At returns the settings in force at an address: none on a Unix socket, which the kernel guards.
func (t TLS) At(address string) TLS {
	if network, _, err := SplitAddress(address); err == nil && network == "unix" {
		return TLS{}
	}
	return t
}

// Validate reports settings that contradict each other; it does not open the files.
func (t TLS) Validate() error {
	if t.IsZero() {
		if t.ServerName != "" {
			return errors.New("server_name is set, but cert_file, key_file and ca_file are not")
		}
		return nil
	}
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"cert_file", t.CertFile}, {"key_file", t.KeyFile}, {"ca_file", t.CAFile},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing: mutual TLS needs cert_file, key_file and ca_file", f.name))
		}
	}
	return errors.Join(errs...)
}

// ServerCredentials returns the transport security of a gRPC server: plain text for the zero
// value, otherwise mutual TLS. The files are read now, so that mistakes are told at once, and
// again when they have changed and a client connects, so a renewed certificate needs no
// restart. Files that turn unreadable later leave the certificates in force that were read
// last.
//
// verify, if it is not nil, has the last word on each connection whose certificate is verified.
func ServerCredentials(t TLS, verify func(tls.ConnectionState) error) (credentials.TransportCredentials, error) {
	if t.IsZero() {
		return insecure.NewCredentials(), nil
	}
	cfg, err := ServerConfig(t, verify, "h2")
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(cfg), nil
}

// ServerConfig returns the mutual TLS of [ServerCredentials] for a server of the protocols (ALPN). t must not be zero.
func ServerConfig(t TLS, verify func(tls.ConnectionState) error, protocols ...string) (*tls.Config, error) {
	r := &reloader{files: t, verify: verify, protocols: protocols}
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.config() }
	return cfg, nil
}

// ClientCredentials returns the transport security of one client connection:
// plain text for the zero value, otherwise mutual TLS. The files are read now; a client that
// calls it for each new connection follows renewed certificates.
func ClientCredentials(t TLS) (credentials.TransportCredentials, error) {
	if t.IsZero() {
		return insecure.NewCredentials(), nil
	}
	cert, pool, err := t.load()
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ServerName:   t.ServerName,
	}), nil
}

// Leaf returns the certificate that the files hold for this program, unverified.
func (t TLS) Leaf() (*x509.Certificate, error) {
	cert, _, err := t.load()
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(cert.Certificate[0])
}

// load reads the files.
func (t TLS) load() (tls.Certificate, *x509.CertPool, error) {
	if err := t.Validate(); err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return cert, nil, fmt.Errorf("read certificate %s and key %s: %w", t.CertFile, t.KeyFile, err)
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return cert, nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return cert, nil, fmt.Errorf("read certificate authorities %s: no certificate in PEM in it", t.CAFile)
	}
	return cert, pool, nil
}

// reloader keeps a server's configuration and reads the files again when one of them has changed.
type reloader struct {
	files     TLS
	verify    func(tls.ConnectionState) error
	protocols []string

	mu      sync.Mutex
	current *tls.Config
	read    [3]stamp
}

// stamp tells whether a file changed.
type stamp struct {
	modified time.Time
	size     int64
}

func (r *reloader) config() (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var now [3]stamp
	for i, path := range []string{r.files.CertFile, r.files.KeyFile, r.files.CAFile} {
		if fi, err := os.Stat(path); err == nil {
			now[i] = stamp{fi.ModTime(), fi.Size()}
		}
	}
	if r.current != nil && now == r.read {
		return r.current, nil
	}
	cert, pool, err := r.files.load()
	if err != nil {
		if r.current != nil {
			return r.current, nil // half-written files: the next connection tries again
		}
		return nil, err
	}
	r.read = now
	r.current = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		NextProtos:   r.protocols,

		VerifyConnection: r.verify,
	}
	return r.current, nil
}

// PeerIdentity returns the name that a verified certificate gives its holder: the first URI,
// else the first DNS name, else the common name; "" if it has none. A name that looks like a URI and is
// not one counts as none: many an authority lets its clients choose their common name.
func PeerIdentity(cert *x509.Certificate) string {
	name := cert.Subject.CommonName
	switch {
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		name = cert.DNSNames[0]
	}
	if strings.Contains(name, "://") {
		return ""
	}
	return name
}
