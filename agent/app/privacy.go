package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/httpctl/httpctl/agent/privacy"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// keyName is the file of the state directory that holds the host's own key of hashes.
const keyName = "privacy-key"

// privacyKey returns the key of hashes; nil where nothing is hashed. A host without a key makes one, in the state
// directory; mint is false for a reader of files, whose key then lasts as long as it reads.
func privacyKey(cfg privacy.Config, state string, mint bool) ([]byte, error) {
	if !cfg.Hashes() {
		return nil, nil
	}
	path := cfg.KeyFile
	if path == "" {
		path = filepath.Join(state, keyName)
	}
	key, err := readKey(path)
	if cfg.KeyFile != "" || err == nil {
		if err != nil {
			err = fmt.Errorf("read the key of hashes (agent.privacy.key_file): %w", err)
		}
		return key, err
	}
	if mint && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key of hashes: %w", err)
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails: crypto/rand ends the program instead
	key = []byte(hex.EncodeToString(random))
	if mint {
		if err := writeKey(path, key); err != nil {
			return nil, fmt.Errorf("keep the key of hashes: %w", err)
		}
	}
	return key, nil
}

// readKey reads a file of some bytes, of which all count.
func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, privacy.MaxKey+1))
	if err == nil && (len(key) < privacy.MinKey || len(key) > privacy.MaxKey) {
		err = fmt.Errorf("%s does not hold %d to %d bytes; such as 'head -c 32 /dev/urandom > FILE' writes", path, privacy.MinKey, privacy.MaxKey)
	}
	return key, err
}

// writeKey makes the file, whole or not at all.
func writeKey(path string, key []byte) error {
	if err := os.WriteFile(path+".new", key, 0o600); err != nil {
		return err
	}
	f, err := os.Open(path + ".new")
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), os.Rename(path+".new", path))
	}
	return err
}

// veiled returns sink, behind what leaves out of exchanges what is not to be known.
func veiled(cfg privacy.Config, key []byte, sink exchange.Sink) exchange.Sink {
	if cfg.Off() {
		return sink
	}
	return privacy.New(cfg, key, sink)
}
