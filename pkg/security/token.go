package security

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TokenHeader is the metadata key under which a call over loopback shows the token.
const TokenHeader = "httpctl-token"

// tokenBytes is the length of a token before it is written in hex: more than can be guessed.
const tokenBytes = 32

// Token is the secret that whoever changes something over loopback has to show. Only its hash is kept in
// memory. The zero value is no token, which nothing equals.
type Token struct {
	sum [sha256.Size]byte
	set bool
}

// Is reports whether shown is the token, in the same time whatever it is.
func (t Token) Is(shown string) bool {
	sum := sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 && t.set
}

// MakeToken writes a new token into the file, which only this program's user may read, in place of the one
// that may be there.
func MakeToken(path string) (Token, error) {
	secret := make([]byte, tokenBytes)
	if _, err := rand.Read(secret); err != nil {
		return Token{}, fmt.Errorf("make a token: %w", err)
	}
	text := hex.EncodeToString(secret)
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	fail := func(err error) (Token, error) {
		return Token{}, fmt.Errorf("write the token %s: %w", path, err)
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = io.WriteString(f, text+"\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fail(errors.Join(err, os.Remove(temp)))
	}
	return Token{sha256.Sum256([]byte(text)), true}, nil
}

// ReadToken returns the token in a file that MakeToken wrote.
func ReadToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4*tokenBytes))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if b, err := hex.DecodeString(text); err != nil || len(b) != tokenBytes {
		return "", fmt.Errorf("read the token %s: there is none in it; an aggregator writes it as %d hexadecimal digits", path, 2*tokenBytes)
	}
	return text, nil
}
