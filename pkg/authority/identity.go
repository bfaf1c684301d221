package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Role is what the holder of a certificate is in the fleet.
type Role string

// The roles that a certificate of the built-in authority can have.
const (
	Agent      Role = "agent"
	Viewer     Role = "viewer"
	Admin      Role = "admin"
	Aggregator Role = "aggregator"
)

// Roles are all of them.
var Roles = []Role{Agent, Viewer, Admin, Aggregator}

// maxName bounds the name in an identity.
const maxName = 64

// NewIdentity returns spiffe://TRUST-DOMAIN/ROLE/NAME.
func NewIdentity(trustDomain string, role Role, name string) (string, error) {
	u, err := identity(trustDomain, role, name)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// identity is NewIdentity.
func identity(trustDomain string, role Role, name string) (*url.URL, error) {
	if !slices.Contains(Roles, role) {
		return nil, fmt.Errorf("role %q: want one of %v", role, Roles)
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if role == Agent && (len(name) != 32 || strings.Trim(name, "0123456789abcdef") != "") {
		return nil, fmt.Errorf("name %q: an agent's is its host id, 32 hexadecimal digits", name)
	}
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/" + string(role) + "/" + name}, nil
}

// CheckName says whether a name can stand in an identity (SPIFFE-ID, section 2.2).
func CheckName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	if name == "" || len(name) > maxName || strings.Trim(name, letters) != "" || name == "." || name == ".." {
		return fmt.Errorf("name %q: want 1 to %d letters, digits, dots, hyphens and underscores", name, maxName)
	}
	return nil
}

// checkTrustDomain follows SPIFFE-ID, section 2.1.
func checkTrustDomain(domain string) error {
	if domain == "" || len(domain) > 255 || strings.Trim(domain, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return fmt.Errorf("trust domain %q: want 1 to 255 small letters, digits, dots, hyphens and underscores", domain)
	}
	return nil
}

// TrustDomain returns the trust domain that a certificate names, "" if none.
func TrustDomain(c *x509.Certificate) string {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" {
		return ""
	}
	return c.URIs[0].Host
}

// ErrIdentity is returned by Identity for a certificate that the built-in authority does not make.
var ErrIdentity = errors.New("its certificate names no agent, viewer, admin or aggregator of the fleet")

// Identity returns who the holder of a certificate of the built-in authority is.
func Identity(c *x509.Certificate) (role Role, name string, err error) {
	if TrustDomain(c) == "" {
		return "", "", ErrIdentity
	}
	r, name, ok := strings.Cut(strings.TrimPrefix(c.URIs[0].Path, "/"), "/")
	if role = Role(r); !ok || !slices.Contains(Roles, role) || CheckName(name) != nil {
		return "", "", ErrIdentity
	}
	return role, name, nil
}
