package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// The top-level buckets of the file and the keys of "meta".
var (
	bucketMeta      = []byte("meta")
	bucketIntervals = []byte("intervals")
	bucketManifests = []byte("manifests")
	bucketHosts     = []byte("hosts")
	bucketState     = []byte("state")
	bucketAside     = []byte("damaged") // intervals and steps whose pages are damaged, made when there is one

	bucketRollups         = []byte("rollups") // steps
	bucketRollupManifests = []byte("rollup-manifests")
	bucketPast            = []byte("past-hosts")

	keyFormat  = []byte("format")
	keyCreated = []byte("created") // when the store was made, nanoseconds
	keySealed  = []byte("sealed")  // the sealed floor, nanoseconds
	keyExpired = []byte("expired") // how many buckets expired
	// The floors of the roll-ups: those that start before it are purged, nanoseconds.
	keyMinutes = []byte("purged-minutes")
	keyHours   = []byte("purged-hours")
	keyDays    = []byte("purged-days")
	keyProof   = []byte("proof") // written by the first commit after a failed one
)

const (
	formatMagic   = "httpctl store\n"
	formatVersion = 3

	blobKeyLen = 16 + 16 + 4 // host, incarnation, part
)

// FormatVersion is the version of the database that this program reads and writes.
const FormatVersion = formatVersion

// The first byte of a bucket's payload.
const flagSkewed = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed prefixes payload with the CRC32C over key and payload.
func sealedValue(key []byte, payload ...[]byte) []byte {
	n := 4
	for _, p := range payload {
		n += len(p)
	}
	v := make([]byte, 4, n)
	crc := crc32.Update(0, castagnoli, key)
	for _, p := range payload {
		crc = crc32.Update(crc, castagnoli, p)
		v = append(v, p...)
	}
	binary.BigEndian.PutUint32(v, crc)
	return v
}

// unseal returns the payload of a value that sealedValue made.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 4 {
		return nil, fmt.Errorf("value of %d bytes: %w", len(value), store.ErrCorrupt)
	}
	payload := value[4:]
	if crc := crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, payload); crc != binary.BigEndian.Uint32(value) {
		return nil, fmt.Errorf("checksum of key %x: %w", key, store.ErrCorrupt)
	}
	return payload, nil
}

// blobValue seals a bucket, and unsealBlob opens it; start and key are those of the entry.
func blobValue(start, key []byte, it *store.Item) []byte {
	flags := byte(0)
	if it.Skewed {
		flags = flagSkewed
	}
	return sealedValue(crcKey(start, key), []byte{flags}, it.Data)
}

func unsealBlob(start, key, value []byte) (data []byte, skewed bool, err error) {
	p, err := unseal(crcKey(start, key), value)
	if err == nil && (len(p) == 0 || p[0] > flagSkewed) {
		err = fmt.Errorf("flags of key %x: %w", key, store.ErrCorrupt)
	}
	if err != nil {
		return nil, false, err
	}
	return p[1:], p[0] == flagSkewed, nil
}

// startKey is the key of an interval: its start, which is never negative.
func startKey(start int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(start))
}

// blobKey is the key of a bucket within its interval.
func blobKey(n *bucket.Name) []byte {
	k := make([]byte, 0, blobKeyLen)
	k = append(k, n.Host[:]...)
	k = append(k, n.Incarnation[:]...)
	return binary.BigEndian.AppendUint32(k, n.Part)
}

// crcKey is what the CRC of a bucket's value covers as its key: with the
// start, so that a value cannot turn up in another interval.
func crcKey(start, blob []byte) []byte {
	return append(append(make([]byte, 0, len(start)+len(blob)), start...), blob...)
}

// manifest says what an interval holds.
type manifest struct {
	count uint64 // of buckets
	xor   uint64 // of the hashes of their keys
	end   int64  // the latest end of a bucket, nanoseconds
}

func (m *manifest) value(key []byte) []byte {
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], m.count)
	binary.BigEndian.PutUint64(b[8:], m.xor)
	binary.BigEndian.PutUint64(b[16:], uint64(m.end))
	return sealedValue(key, b[:])
}

func parseManifest(key, value []byte) (m manifest, err error) {
	p, err := unseal(key, value)
	if err != nil {
		return m, err
	}
	if len(p) != 24 {
		return m, fmt.Errorf("manifest of %d bytes: %w", len(p), store.ErrCorrupt)
	}
	m.count = binary.BigEndian.Uint64(p[0:])
	m.xor = binary.BigEndian.Uint64(p[8:])
	m.end = int64(binary.BigEndian.Uint64(p[16:]))
	return m, nil
}

// nameHash is FNV-1a, 64 bits, with a final mix so that the XOR of many keys
// with a common prefix does not cancel out.
func nameHash(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd // the finaliser of MurmurHash3
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// floorKey is the key in "meta" of the floor of roll-ups of a resolution.
func floorKey(r store.Resolution) []byte {
	return [...][]byte{store.Minute: keyMinutes, store.Hour: keyHours, store.Day: keyDays}[r]
}

func formatValue(version uint32) []byte {
	return sealedValue(keyFormat, []byte(formatMagic), binary.BigEndian.AppendUint32(nil, version))
}

// formatOf reads the format marker and returns the version, which this program knows.
func formatOf(value []byte) (uint32, error) {
	p, err := unseal(keyFormat, value)
	if err != nil {
		return 0, fmt.Errorf("format marker: %w", err)
	}
	if len(p) != len(formatMagic)+4 || string(p[:len(formatMagic)]) != formatMagic {
		return 0, fmt.Errorf("format marker %q: %w", p, store.ErrCorrupt)
	}
	v := binary.BigEndian.Uint32(p[len(formatMagic):])
	if v > formatVersion {
		return v, fmt.Errorf("format %d, this program knows %d: %w", v, formatVersion, store.ErrVersion)
	}
	return v, nil
}

// getInt reads a number from "meta"; a missing one is 0. The sealed floor and
// the time of making are bounds, so a damaged one must not be guessed at.
func getInt(tx *bbolt.Tx, key []byte) int64 {
	v := tx.Bucket(bucketMeta).Get(key)
	if v == nil {
		return 0
	}
	p, err := unseal(key, v)
	if err != nil || len(p) != 8 {
		panic(fmt.Sprintf("number %q of the store is damaged", key)) // guard makes it ErrCorrupt
	}
	return int64(binary.BigEndian.Uint64(p))
}

func putInt(tx *bbolt.Tx, key []byte, n int64) error {
	return tx.Bucket(bucketMeta).Put(key, sealedValue(key, binary.BigEndian.AppendUint64(nil, uint64(n))))
}
