package capture

import (
	"errors"
	"io"
)

// windowSize is the one buffer through which a file is read. A frame longer
// than maxFrame is cut to it, so that no length field decides how much memory is used:
// the longest frames that Linux makes (BIG TCP) are of 512 KiB.
const (
	windowSize = 1 << 20
	maxFrame   = windowSize - 4096
	// packedSize is that of the buffer before gzip, of which each file that is read at once has one.
	packedSize = 64 << 10
)

// window lets a reader look at the next bytes of a stream without copying
// them: take returns a part of the buffer, which stays valid until take or skip ask for more
// than is there; what skipLater passes over leaves it valid too.
type window struct {
	r          io.Reader
	buf        []byte
	start, end int
	// offset is that of buf[start] in the (unpacked) stream.
	offset int64
	// later is how much to pass over before the next peek.
	later int64
	// limit, if not 0, is where reading ends, see errLimit.
	limit int64
	err   error
}

// errLimit says that what is looked for was not found in the part of a file that is looked through.
var errLimit = errors.New("not found")

func (w *window) reset(r io.Reader) {
	if cap(w.buf) < windowSize {
		w.buf = make([]byte, windowSize)
	}
	*w = window{r: r, buf: w.buf[:windowSize]}
}

// peek returns the next n <= maxFrame bytes without passing over them. At the end of
// the stream it returns what is left and io.EOF if that is nothing, io.ErrUnexpectedEOF
// otherwise, or the error of the reader.
func (w *window) peek(n int) ([]byte, error) {
	if w.later > 0 {
		later := w.later
		w.later = 0
		if err := w.skip(later); err != nil {
			return nil, err
		}
	}
	if w.end-w.start < n {
		if err := w.fill(n); err != nil {
			return w.buf[w.start:w.end], err
		}
	}
	return w.buf[w.start : w.start+n : w.start+n], nil
}

// there returns what the window has of the next bytes, without reading more.
func (w *window) there() []byte {
	if at := int64(w.start) + w.later; at < int64(w.end) {
		return w.buf[at:w.end]
	}
	return nil
}

// take is peek that passes over what it returns.
func (w *window) take(n int) ([]byte, error) {
	b, err := w.peek(n)
	if err == nil {
		w.start += n
		w.offset += int64(n)
	}
	return b, err
}

// skip passes over n bytes, which may be more than the buffer holds.
func (w *window) skip(n int64) error {
	for n > 0 {
		step := int(min(n, maxFrame))
		if _, err := w.take(step); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n -= int64(step)
	}
	return nil
}

// skipLater passes over n bytes once the next are asked for, so that what
// take returned stays as it is until then.
func (w *window) skipLater(n int64) { w.later += n }

func (w *window) fill(n int) error {
	if w.limit > 0 && w.offset >= w.limit {
		return errLimit
	}
	if w.start > 0 {
		w.end = copy(w.buf, w.buf[w.start:w.end])
		w.start = 0
	}
	for idle := 0; w.end < n; {
		if w.err != nil {
			if !errors.Is(w.err, io.EOF) {
				return w.err
			}
			if w.end > 0 {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		}
		k, err := w.r.Read(w.buf[w.end:])
		w.end += k
		w.err = err
		if k == 0 && err == nil {
			if idle++; idle > 100 {
				w.err = io.ErrNoProgress
			}
		}
	}
	return nil
}
