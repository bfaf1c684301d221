package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/security"
)

// tokenPrefix begins a token: what it is, and the version of its form.
const tokenPrefix = "httpctl-enroll-1:"

const (
	// MaxToken bounds a token's text.
	MaxToken = 8 << 10
	// MaxAddresses bounds the addresses in a token.
	MaxAddresses = 16
	// secretSize is that of the secret in bytes: nobody guesses it.
	secretSize = 32
	tokenID    = 6
)

// Token is what a host needs to enrol: whom it talks to, where, and a secret which says that
// it may. Whoever has it may enrol a host until it is used up.
type Token struct {
	ID        string
	Secret    []byte
	Authority Fingerprint // of the aggregator's authority
	Addresses []string    // of the aggregator, host:port, in the order in which they are tried
	Expires   time.Time
}

// tokenText is a token inside its text.
type tokenText struct {
	ID        string   `json:"id"`
	Secret    []byte   `json:"secret"`
	Authority []byte   `json:"ca_sha256"`
	Addresses []string `json:"addresses"`
	Expires   int64    `json:"expires"`
}

// NewToken makes a token that nobody has.
func NewToken(authority Fingerprint, addresses []string, expires time.Time) (Token, error) {
	id, secret := make([]byte, tokenID), make([]byte, secretSize)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the program instead
	_, _ = rand.Read(secret)
	t := Token{ID: hex.EncodeToString(id), Secret: secret, Authority: authority, Addresses: addresses, Expires: expires.Truncate(time.Second)}
	return t, t.check()
}

// Text returns the token as it is handed over: one line without spaces.
func (t Token) Text() string {
	data, err := json.Marshal(tokenText{t.ID, t.Secret, t.Authority[:], t.Addresses, t.Expires.Unix()})
	if err != nil {
		panic("authority: a token that cannot be encoded: " + err.Error()) // strings and bytes always can
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseToken reads a token's text, with space around it. Its errors never repeat it.
func ParseToken(text string) (t Token, err error) {
	text = strings.TrimSpace(text)
	payload, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		if strings.HasPrefix(text, "httpctl-enroll-") {
			return t, errors.New("the token is of a newer version of httpctl: use a newer httpctl-agent")
		}
		return t, fmt.Errorf("it holds no enrolment token: one begins with %q (httpctl enroll create makes it)", tokenPrefix)
	}
	broken := errors.New("the token is damaged: was all of it copied?")
	if len(text) > MaxToken {
		return t, broken
	}
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return t, broken
	}
	var p tokenText
	if err := json.Unmarshal(data, &p); err != nil || len(p.Authority) != len(t.Authority) {
		return t, broken
	}
	t = Token{ID: p.ID, Secret: p.Secret, Authority: Fingerprint(p.Authority), Addresses: p.Addresses, Expires: time.Unix(p.Expires, 0)}
	if t.check() != nil {
		return Token{}, broken
	}
	return t, nil
}

func (t Token) check() error {
	if !IsTokenID(t.ID) || len(t.Secret) != secretSize {
		return errors.New("a token needs an id and a secret")
	}
	if len(t.Addresses) == 0 || len(t.Addresses) > MaxAddresses {
		return fmt.Errorf("%d addresses of the aggregator: want 1 to %d", len(t.Addresses), MaxAddresses)
	}
	for _, a := range t.Addresses {
		network, _, err := security.SplitAddress(a)
		if err != nil {
			return err
		}
		if network != "tcp" || len(a) > 300 {
			return fmt.Errorf("address %q: want host:port", a)
		}
	}
	return nil
}

// IsTokenID reports whether a text has the form of a token's id.
func IsTokenID(id string) bool {
	return len(id) == 2*tokenID && strings.Trim(id, "0123456789abcdef") == ""
}

// SecretHash is what is kept of a secret.
func SecretHash(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

// SecretIs reports whether a secret has the hash, in a time that does not tell how much of it fits.
func SecretIs(secret []byte, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(SecretHash(secret)), []byte(hash)) == 1
}
