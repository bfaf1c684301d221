package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// State is what the service needs of a store.Store.
type State interface {
	Get(ctx context.Context, key string) (value []byte, version uint64, err error)
	CompareAndSwap(ctx context.Context, key string, version uint64, value []byte) (uint64, error)
	List(ctx context.Context, from, to string, f func(key string, value []byte, version uint64) error) error
}

var _ State = store.Store(nil)

// Where records are kept (docs/formats.md).
const (
	tokenKeys = "enroll/token/"
	hostKeys  = "enroll/host/"
	// revokedKeys are followed by the hash of an identity, which can be long.
	revokedKeys = "enroll/revoked/"
)

// token is what is kept of a token: not its secret.
type token struct {
	Hash    string `json:"secret_sha256"`
	Created int64  `json:"created_unix_ns"`
	Expires int64  `json:"expires_unix_ns"`
	Uses    uint32 `json:"uses"`
	Left    uint32 `json:"uses_left"`
	Host    string `json:"host,omitempty"`
}

// host is what is kept of a host that has enrolled.
type host struct {
	Name string `json:"name"`
	// Enrolled is when it got its first certificate, Until when its newest one ends.
	Enrolled int64 `json:"enrolled_unix_ns"`
	Until    int64 `json:"until_unix_ns"`
	// Token and Key are those of its enrolment: an answer that was lost is given again.
	Token string `json:"token,omitempty"`
	Key   string `json:"key_sha256,omitempty"`
	// Again is how often the answer was given again, up to freeAnswers.
	Again uint32 `json:"again,omitempty"`
	// Serial is that of its newest certificate, Before that of the one with which it got it.
	Serial string `json:"serial"`
	// Renewed is when it was renewed last, 0 if never.
	Renewed int64  `json:"renewed_unix_ns,omitempty"`
	Before  string `json:"serial_before,omitempty"`
	// Begins is when the last to begin of all its certificates begins (Unix seconds), 0 if that is not known. It is in the
	// future when the clock was set back since.
	Begins int64 `json:"begins_unix,omitempty"`
}

// revocation is what is kept of an identity whose certificates are refused.
type revocation struct {
	Identity string `json:"identity"`
	Revoked  int64  `json:"revoked_unix_ns"`
	// From is the beginning (Unix seconds) of the first certificate that is accepted again, once the host was let
	// in anew; 0: none is.
	From int64 `json:"from_unix,omitempty"`
}

func revokedKey(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return revokedKeys + hex.EncodeToString(sum[:])
}

func hostKey(id bucket.ID) string { return hostKeys + id.String() }

// read reads a record. ok is false if there is none.
func read[R any](ctx context.Context, s State, key string) (r R, version uint64, ok bool, err error) {
	data, version, err := s.Get(ctx, key)
	if err != nil || data == nil {
		return r, version, false, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, version, false, fmt.Errorf("%s: %w", key, err)
	}
	return r, version, true, nil
}

// write writes a record in the place of that version.
func write[R any](ctx context.Context, s State, key string, version uint64, r R) error {
	data, err := json.Marshal(r)
	if err == nil {
		_, err = s.CompareAndSwap(ctx, key, version, data)
	}
	return err
}

// each calls f for every record whose key begins with prefix.
func each[R any](ctx context.Context, s State, prefix string, f func(id string, r R, version uint64) error) error {
	end := prefix[:len(prefix)-1] + "0" // the byte after the slash
	return s.List(ctx, prefix, end, func(key string, value []byte, version uint64) error {
		var r R
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return f(key[len(prefix):], r, version)
	})
}

func moment(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// StatePrefix begins the keys of all that the service keeps.
const StatePrefix = "enroll/"

// Carry chooses what is kept under a key when a database is restored from a backup while the one that is replaced can be read; nil
// is nothing. The latter is later: what it says of hosts, tokens and revocations holds. Whom only the backup has revoked stays so, as an empty
// database may have been begun meanwhile, and its hosts are known; its tokens are not, as they may have been used or ended since.
func Carry(key string, restored, replaced []byte) []byte {
	if replaced != nil {
		return replaced
	}
	if strings.HasPrefix(key, tokenKeys) {
		return nil
	}
	return restored
}

// CheckState returns why a value of the store's state cannot be read, if it is one that the service keeps.
func CheckState(key string, value []byte) error {
	var into any
	switch {
	case strings.HasPrefix(key, tokenKeys):
		into = &token{}
	case strings.HasPrefix(key, hostKeys):
		into = &host{}
	case strings.HasPrefix(key, revokedKeys):
		into = &revocation{}
	default:
		return nil
	}
	return json.Unmarshal(value, into)
}
