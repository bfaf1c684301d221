// Package enroll gets the host's certificate from the aggregator's authority: the first one with a
// token, the next ones with the one before (docs/operations.md, A fleet).
package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/security"
)

// What an enrolled host keeps, in a folder of its state directory.
const (
	folder         = "tls"
	pairFile       = "agent.pem"
	caFile         = "ca.pem"
	aggregatorFile = "aggregator"
)

// Files are what an enrolled host keeps in its state directory.
type Files struct {
	dir string
}

// In returns the files of a state directory, whether they are there or not.
func In(state string) Files { return Files{filepath.Join(state, folder)} }

// Exist reports whether the host is enrolled, as far as this user can see.
func (f Files) Exist() bool {
	_, err := os.Stat(filepath.Join(f.dir, pairFile))
	return err == nil
}

// TLS returns the settings by which the files are used. Key and certificate are in one file, which is replaced as a whole.
func (f Files) TLS() security.TLS {
	pair := filepath.Join(f.dir, pairFile)
	return security.TLS{CertFile: pair, KeyFile: pair, CAFile: filepath.Join(f.dir, caFile)}
}

// Are reports whether settings are those of the files.
func (f Files) Are(t security.TLS) bool {
	own := f.TLS()
	return t.CertFile == own.CertFile && t.KeyFile == own.KeyFile && t.CAFile == own.CAFile
}

// Aggregator returns the address at which the host was enrolled, "" if it is not.
func (f Files) Aggregator() string {
	text, err := os.ReadFile(filepath.Join(f.dir, aggregatorFile))
	if err != nil || len(text) > 300 {
		return ""
	}
	address := strings.TrimSpace(string(text))
	if _, _, err := security.SplitAddress(address); err != nil {
		return ""
	}
	return address
}

// read returns the certificate with its key, and the authorities.
func (f Files) read() (tls.Certificate, []*x509.Certificate, error) {
	path := filepath.Join(f.dir, pairFile)
	pair, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	cert, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return cert, nil, fmt.Errorf("%s: %w", path, err)
	}
	path = filepath.Join(f.dir, caFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return cert, nil, err
	}
	cas, err := authority.ParseCertificates(text)
	if err != nil {
		return cert, nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, cas, nil
}

// write makes or replaces the files. The pair comes last: with it the host is enrolled. address is "" where it stays.
// The state directory is the agent's user's, and who writes may be root: the folder is what it says, no link to another.
func (f Files) write(pair, authorities []byte, address string, owner authority.Owner) error {
	state, err := os.OpenRoot(filepath.Dir(f.dir))
	if err != nil {
		return err
	}
	defer state.Close()
	name := filepath.Base(f.dir)
	made := state.Mkdir(name, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	if fi, err := state.Lstat(name); err != nil {
		return err
	} else if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory (%s): remove it, and enroll again", f.dir, fi.Mode().Type())
	}
	dir, err := state.OpenRoot(name) // which follows no link out of the state directory
	if err != nil {
		return err
	}
	defer dir.Close()
	if made == nil {
		d, err := dir.Open(".")
		if err == nil {
			err = errors.Join(owner.Give(d), d.Close())
		}
		if err != nil {
			return err
		}
	}
	if err := authority.WriteIn(dir, caFile, authorities, 0o600, owner); err != nil {
		return err
	}
	if address != "" {
		if err := authority.WriteIn(dir, aggregatorFile, []byte(address+"\n"), 0o600, owner); err != nil {
			return err
		}
	}
	return authority.WriteIn(dir, pairFile, pair, 0o600, owner)
}
