package bucket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// The format, byte by byte, is in docs/formats.md.
const (
	magic         = "HCTB"
	anyVersion    = 0 // to encode: whichever is better
	version1      = 1 // deflated, with a preset dictionary
	formatVersion = 2 // the start that a string shares with the one before left out, and zstd
	trailerSize   = 4 // CRC32C

	// Up to so many bytes in all strings, and so many keys in all rows, Encode writes version 1: the preset dictionary saves more
	// there than zstd does, and it takes no time to speak of.
	smallText = 4 << 10
	smallKeys = 400

	// maxBody bounds the body before compression. 10,000 keys in each of ten
	// tables make about 5 MB.
	maxBody = 32 << 20
	// maxCost bounds what a bucket takes in memory once decoded, in bytes,
	// whatever its bytes claim.
	maxCost = 96 << 20
	// maxRatio is the most that deflate can shrink (RFC 1951: 258 bytes in 2 bits), and maxRatio2 zstd (RFC 8878: a block of
	// 128 KiB in 4 bytes).
	maxRatio  = 1032
	maxRatio2 = 32 << 10

	maxHostName   = 1024
	maxUnobserved = 4096
	// maxCounters is how many counters a newer agent may send.
	maxCounters = 1024
)

// FormatVersion is the newest version of a bucket's bytes that Encode writes and Decode reads.
const FormatVersion = formatVersion

// ErrCorrupt is wrapped by Decode's error for bytes that Encode did not write.
var ErrCorrupt = errors.New("bucket is corrupt")

// ErrVersion is wrapped by Decode's error for a format newer than this program.
var ErrVersion = errors.New("bucket format is newer than this program")

// ErrTooLarge is wrapped by Encode's error for a bucket beyond the limits of
// the format: 32 MiB of tables before compression, 96 MiB in memory.
var ErrTooLarge = errors.New("bucket is too large")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }

// Encode appends the encoding of b to dst, with its checksum. Equal buckets
// encode to equal bytes, whatever the order of their rows. It returns an error for a schema that is
// not valid, for two tables of one name, a sketch that was not made by its methods, and for a
// bucket beyond the limits (ErrTooLarge). It does not change b.
func Encode(dst []byte, b *Bucket) ([]byte, error) { return encode(dst, b, anyVersion) }

// ForVersion returns data, or if its format is newer than that version, the same bucket in version 1, which every program reads.
// The error is Decode's, or Encode's: what is near the limits can be beyond them in another version.
func ForVersion(data []byte, version int) ([]byte, error) {
	if len(data) <= len(magic) || int(data[len(magic)]) <= version {
		return data, nil
	}
	b, err := Decode(data)
	if err != nil {
		return nil, err
	}
	return encode(nil, b, version1)
}

func encode(dst []byte, b *Bucket, version byte) ([]byte, error) {
	if len(b.HostName) > maxHostName || len(b.Unobserved) > maxUnobserved {
		return nil, fmt.Errorf("encode bucket: host name of %d bytes, %d unobserved spans: %w",
			len(b.HostName), len(b.Unobserved), ErrTooLarge)
	}
	if b.Width < 0 || slices.ContainsFunc(b.Unobserved, func(s Span) bool { return s.To < s.From }) {
		return nil, fmt.Errorf("encode bucket: width %v or one of the spans %v ends before it begins", b.Width, b.Unobserved)
	}
	start := len(dst)
	var e *encoder
	if len(b.Tables) > 0 {
		e = encoders.Get().(*encoder)
		defer func() {
			e.release()
			encoders.Put(e)
		}()
		e.number(b)
	}
	switch {
	case e == nil: // no body, in whose form the versions differ
		version = version1
	case version == anyVersion && e.size <= smallText && len(e.keys) <= smallKeys:
		version = version1
	case version == anyVersion:
		version = formatVersion
	}
	dst = append(dst, magic...)
	dst = append(dst, version)
	header := appendHeader(nil, &b.Header)
	dst = binary.AppendUvarint(dst, uint64(len(header)))
	dst = append(dst, header...)
	if e != nil {
		if err := e.encode(b, version); err != nil {
			return nil, fmt.Errorf("encode bucket: %w", err)
		}
		dst = binary.AppendUvarint(dst, uint64(len(e.body)))
		if version == version1 {
			dst = e.deflate(dst)
		} else {
			dst = e.pack(dst)
		}
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli)), nil
}

// DecodeHeader verifies the checksum of data and decodes its header only.
// Errors are those of Decode.
func DecodeHeader(data []byte) (*Header, error) {
	h, _, _, err := open(data)
	return h, err
}

// Decode verifies the checksum of data and decodes it; given names, only the
// tables of those names. The result takes no memory of data. The error wraps
// ErrCorrupt or ErrVersion. Counters that this program does not know are left
// out. Hostile bytes cost time and memory in proportion to what they hold
// once decompressed, at most 32 MiB of body and about 96 MiB in memory.
func Decode(data []byte, names ...string) (*Bucket, error) {
	return decode(data, new(memory), names)
}

func decode(data []byte, m *memory, names []string) (*Bucket, error) {
	h, version, rest, err := open(data)
	if err != nil {
		return nil, err
	}
	b := &Bucket{Header: *h}
	if len(rest) == 0 {
		return b, nil
	}
	size, n := binary.Uvarint(rest)
	ratio, unpack := uint64(maxRatio), inflate
	if version != version1 {
		ratio, unpack = maxRatio2, unpackZstd
	}
	if n <= 0 || size == 0 || size > maxBody || size > ratio*uint64(len(rest)) {
		return nil, corrupt("size of the body")
	}
	if size > keptBody {
		m = new(memory)
	}
	body := take(m, &m.body, int(size))
	if err := unpack(rest[n:], body); err != nil {
		return nil, err
	}
	if b.Tables, err = parseBody(body, version, h, m, names); err != nil {
		return nil, err
	}
	return b, nil
}

// open verifies data and returns its header, the version of its format, and what follows the header, up to the trailer.
func open(data []byte) (*Header, byte, []byte, error) {
	if len(data) < len(magic)+1+trailerSize || string(data[:len(magic)]) != magic {
		return nil, 0, nil, corrupt("no bucket begins like this")
	}
	sum := binary.LittleEndian.Uint32(data[len(data)-trailerSize:])
	data = data[:len(data)-trailerSize]
	if crc32.Checksum(data, castagnoli) != sum {
		return nil, 0, nil, corrupt("checksum does not match")
	}
	version := data[len(magic)]
	if version > formatVersion {
		return nil, 0, nil, fmt.Errorf("%w: version %d, this program reads up to %d", ErrVersion, version, formatVersion)
	} else if version == 0 {
		return nil, 0, nil, corrupt("version 0")
	}
	rest := data[len(magic)+1:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return nil, 0, nil, corrupt("size of the header")
	}
	h, err := parseHeader(rest[n : n+int(size)])
	return h, version, rest[n+int(size):], err
}

const flagFinal = 1

func appendHeader(dst []byte, h *Header) []byte {
	dst = append(dst, h.Host[:]...)
	dst = append(dst, h.Incarnation[:]...)
	dst = binary.AppendVarint(dst, h.Start)
	dst = binary.AppendUvarint(dst, uint64(h.Width))
	dst = binary.AppendUvarint(dst, uint64(h.Part))
	flags := byte(0)
	if h.Final {
		flags |= flagFinal
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(h.Revision))
	dst = binary.AppendUvarint(dst, h.Ordinal)
	dst = binary.AppendVarint(dst, h.ClosedThrough-h.Start)
	dst = binary.AppendVarint(dst, h.ObservedFrom-h.Start)
	dst = binary.AppendUvarint(dst, h.Open)
	dst = binary.AppendUvarint(dst, uint64(len(h.HostName)))
	dst = append(dst, h.HostName...)
	dst = binary.AppendUvarint(dst, uint64(len(h.Unobserved)))
	for _, s := range h.Unobserved {
		dst = binary.AppendVarint(dst, s.From-h.Start)
		dst = binary.AppendUvarint(dst, uint64(s.To-s.From))
	}
	n := len(h.Counters)
	for n > 0 && h.Counters[n-1] == 0 {
		n--
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for _, c := range h.Counters[:n] {
		dst = binary.AppendUvarint(dst, c)
	}
	return dst
}

func parseHeader(data []byte) (*Header, error) {
	r := reader{data: data}
	h := new(Header)
	copy(h.Host[:], r.bytes(16))
	copy(h.Incarnation[:], r.bytes(16))
	h.Start = r.varint()
	h.Width = time.Duration(r.bounded(math.MaxInt64))
	h.Part = uint32(r.bounded(math.MaxUint32))
	if f := r.bytes(1); f != nil {
		h.Final = f[0]&flagFinal != 0
	}
	h.Revision = uint32(r.bounded(math.MaxUint32))
	h.Ordinal = r.uvarint()
	h.ClosedThrough = h.Start + r.varint()
	h.ObservedFrom = h.Start + r.varint()
	h.Open = r.uvarint()
	h.HostName = string(r.bytes(r.bounded(maxHostName)))
	for n := r.bounded(maxUnobserved); n > 0 && !r.failed; n-- {
		from := h.Start + r.varint()
		to := from + int64(r.uvarint())
		if to < from {
			r.fail()
		}
		h.Unobserved = append(h.Unobserved, Span{from, to})
	}
	n := r.bounded(maxCounters)
	for i := range n {
		if v := r.uvarint(); i < int(exchange.NumCounters) {
			h.Counters[i] = v
		}
	}
	if r.failed {
		return nil, corrupt("header")
	}
	// Bytes after the counters are fields of a later minor change.
	return h, nil
}

// reader reads numbers; after the first that is not there, or is too large,
// it has failed and gives zeros.
type reader struct {
	data   []byte
	at     int // the next; to move it on costs less than to cut data
	failed bool
}

func (r *reader) left() int { return len(r.data) - r.at }

func (r *reader) fail() { r.failed, r.at = true, len(r.data) }

func (r *reader) uvarint() uint64 {
	// One byte is the usual case.
	if r.at < len(r.data) && r.data[r.at] < 0x80 {
		r.at++
		return uint64(r.data[r.at-1])
	}
	return r.long()
}

func (r *reader) long() uint64 {
	v, n := binary.Uvarint(r.data[r.at:])
	if n <= 0 {
		r.fail()
		return 0
	}
	r.at += n
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bounded reads a number of at most limit.
func (r *reader) bounded(limit int) int {
	v := r.uvarint()
	if v > uint64(limit) {
		r.fail()
		return 0
	}
	return int(v)
}

// count reads how many things follow that take at least size bytes each.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if v > uint64(r.left()/size) {
		r.fail()
		return 0
	}
	return int(v)
}

// bytes returns the next n bytes, borrowed, or nil.
func (r *reader) bytes(n int) []byte {
	if n > r.left() {
		r.fail()
		return nil
	}
	r.at += n
	return r.data[r.at-n : r.at : r.at]
}

// preset is deflate's preset dictionary (RFC 1951 section 3.3.1 has distances
// reach into it): text that most buckets hold, likeliest last. It is part of
// format version 1 and never changes.
const preset = "Mozilla/5.0 (compatible; +http://)Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/ Safari/537.36" +
	"Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/curl/7Go-http-client/1.1python-requests/2Prometheus/kube-probe/1Wget/1" +
	"CONNECTDELETEHEADOPTIONSPATCHPUTQUERYTRACE_OTHERPOSTGET100101201202206301302303307308400401403405408409410413416422429500501502503504204304404200" +
	"wwwapistaticassetshealthmetricslogin.orgexample.com127.0.0.1:80192.168.10.0.:8080:443/api/static/" +
	"user_agentUser agentsclient_ipClientsserverServersResponse times by serverroutesRoutesdomain_bytesvolumeVolume by domainuploaddownload" +
	"totalsmethodMethodsstatusStatus codesdomainDomainssectionSections" +
	"unmatched_requestsunmatched_responsesrequest_bytesresponse_bytesrequest_wire_bytesresponse_wire_bytesearly_responses" +
	"responsesoutcomesrequests{response}{exchange}{request}Bynsbyteshitsttfblast_seenmirrorroleserverclienttransit0-1"

var encoders = sync.Pool{New: func() any { return new(encoder) }}

var readers = sync.Pool{New: func() any { return flate.NewReaderDict(bytes.NewReader(nil), []byte(preset)) }}

// deflate appends the compressed body to dst.
func (e *encoder) deflate(dst []byte) []byte {
	if e.w == nil {
		var err error
		if e.w, err = flate.NewWriterDict(io.Discard, 5, []byte(preset)); err != nil {
			panic(err) // only for an unknown level
		}
	}
	out := bytes.NewBuffer(dst)
	e.w.Reset(out)
	// A Buffer never fails.
	_, _ = e.w.Write(e.body)
	_ = e.w.Close()
	e.w.Reset(nil) // which forgets out
	return out.Bytes()
}

// pack appends the body as a zstd frame to dst.
func (e *encoder) pack(dst []byte) []byte {
	if e.z == nil {
		var err error
		if e.z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
			panic(err) // only for unknown options
		}
	}
	return e.z.EncodeAll(e.body, dst)
}

var unpacker = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(maxBody))
	if err != nil {
		panic(err) // only for unknown options
	}
	return d
})

// unpackZstd is inflate for zstd.
func unpackZstd(data, body []byte) error {
	out, err := unpacker().DecodeAll(data, body[:0])
	if err != nil {
		return corrupt("compression")
	}
	if len(out) != len(body) {
		return corrupt("length of the body")
	}
	return nil
}

// inflate fills body with what data holds, no more, no less.
func inflate(data, body []byte) error {
	in := bytes.NewReader(data)
	r := readers.Get().(io.ReadCloser)
	defer readers.Put(r)
	if err := r.(flate.Resetter).Reset(in, []byte(preset)); err != nil {
		return corrupt("compression")
	}
	if _, err := io.ReadFull(r, body); err != nil {
		return corrupt("compression")
	}
	var more [1]byte
	if n, err := r.Read(more[:]); n != 0 || err != io.EOF || in.Len() != 0 {
		return corrupt("length of the body")
	}
	return nil
}
