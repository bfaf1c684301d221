package capture

import (
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// ErrNotCapture is wrapped by the *Error for a file whose first bytes are not
// those of a capture, an empty file included.
var ErrNotCapture = errors.New("not a capture file")

// Error says what failed, on what, and what an operator can do about it.
type Error struct {
	Op   string // "open", "read", "capture on", "capture in"
	Path string // file, interface or network namespace
	Err  error
	Hint string // may be empty
}

// Error returns one line, the hint at its end.
func (e *Error) Error() string {
	path := e.Path
	if path == Stdin {
		path = "standard input"
	}
	s := e.Op + " " + path + ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Files reads capture files as one source: classic pcap and pcapng, packed with gzip or not,
// recognised by their first bytes. The packets of several files come in order of their times, see merger; if
// standard input or a pipe is among them, one file after another as they were given. Numbers count
// through all of them.
//
// A file that is damaged or cut behind its header gives the packets before
// the damage and a warning. A file is read through a buffer of 1 MiB.
type Files struct {
	paths []string
	total int64 // of all files, 0 if not known
	read  atomic.Int64
	merge *merger // nil for one file, or one after another

	window  window
	current int // index of the open file in paths, plus one
	file    *os.File
	format  format
	stats   Stats

	closed atomic.Bool

	mu       sync.Mutex // guards file against Close, and what follows
	warnings []string
	warned   map[string]bool
	unsaid   int // warnings beyond maxWarnings
}

var _ Source = (*Files)(nil)

// format is how the records of a file are read.
type format interface {
	// next reads up to the end of the next packet. At the clean end of the file it returns io.EOF.
	next(w *window, p *Packet) error
	// whole reports whether a packet comes next, with nothing wrong, and is in the window to its
	// end: then next succeeds, and what is lent from the window stays where it is.
	whole(w *window) bool
}

// maxWarnings bounds what a source remembers of hostile files.
const maxWarnings = 100

// OpenFile opens one capture file.
func OpenFile(path string) (*Files, error) { return OpenFiles([]string{path}) }

// OpenFiles opens capture files. [Stdin] is standard input. Every regular file is
// looked at now, so that a wrong name at the end of a list is told at once; the
// error is an *Error.
func OpenFiles(paths []string) (*Files, error) {
	if len(paths) == 0 {
		return nil, errors.New("no capture file given")
	}
	f := &Files{paths: paths, warned: map[string]bool{}}
	var regular []string
	for _, path := range paths {
		fi, err := stat(path)
		if err != nil {
			return nil, openError(path, err)
		}
		if fi.IsDir() {
			return nil, &Error{Op: "open", Path: path, Err: errors.New("is a directory"), Hint: "name the capture files in it"}
		}
		if fi.Mode().IsRegular() {
			regular = append(regular, path)
			f.total += fi.Size()
		}
	}
	if len(regular) < len(paths) {
		f.total = 0
	}
	if len(paths) > 1 {
		m := &merger{}
		for _, path := range regular {
			if path == Stdin {
				continue
			}
			p, err := f.look(path)
			if err != nil {
				return nil, err
			}
			m.waiting = append(m.waiting, p)
		}
		f.read.Store(0)
		if len(m.waiting) == len(paths) {
			slices.SortStableFunc(m.waiting, func(a, b part) int { return cmp.Compare(a.first, b.first) })
			f.merge = m
			return f, nil
		}
	}
	if err := f.open(paths[0]); err != nil {
		return nil, err
	}
	f.current = 1
	return f, nil
}

func stat(path string) (fs.FileInfo, error) {
	if path == Stdin {
		return os.Stdin.Stat()
	}
	return os.Stat(path)
}

func openError(path string, err error) error {
	e := &Error{Op: "open", Path: path, Err: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.Err = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "it must be readable for this user"
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = "check the name; - is standard input"
	}
	return e
}

// open starts to read a file: it finds out what it is, and reads its header.
func (f *Files) open(path string) error {
	file := os.Stdin
	if path != Stdin {
		var err error
		if file, err = os.Open(path); err != nil {
			return openError(path, err)
		}
	}
	f.mu.Lock()
	f.file = file
	if f.closed.Load() {
		file.Close()
	}
	f.mu.Unlock()
	err := f.recognise(path)
	if err != nil && path != Stdin {
		file.Close()
	}
	return err
}

func (f *Files) recognise(path string) error {
	f.window.reset(&counting{r: f.file, n: &f.read})
	packed := ""
	// The first reading is of as much as gzip is given to read on from.
	whole := f.window.buf
	f.window.buf = whole[:packedSize]
	h, err := f.window.peek(24)
	if len(h) >= 3 && h[0] == 0x1f && h[1] == 0x8b && h[2] == 8 {
		packed = "gzip with "
		packedBytes := &window{}
		*packedBytes = f.window
		packedBytes.buf = bytes.Clone(f.window.buf)
		f.window = window{buf: whole}
		z, zerr := gzip.NewReader(packedBytes)
		if zerr != nil {
			return &Error{Op: "open", Path: path, Err: ErrNotCapture, Hint: "it begins as gzip and can't be unpacked: " + zerr.Error()}
		}
		f.window.reset(z)
		h, err = f.window.peek(24)
	}
	f.window.buf = whole
	if err != nil && err != io.EOF && !isDamage(err) {
		return &Error{Op: "read", Path: path, Err: err}
	}
	if p, ok := newPcap(h); ok {
		f.window.take(24)
		p.vary(f.window.there())
		f.format = p
		return nil
	}
	if isPcapng(h) {
		f.format = &pcapngFile{warn: func(s string) { f.warn("%s: %s", path, s) }}
		return nil
	}
	return &Error{Op: "open", Path: path, Err: ErrNotCapture,
		Hint: "it is " + packed + looksLike(h) + "; pcap and pcapng are read, gzip too"}
}

// looksLike names the kind of a file that is not a capture, by its first bytes.
func looksLike(h []byte) string {
	for _, k := range []struct{ magic, name string }{
		{"snoop\x00", "a snoop capture, which `editcap -F pcap IN OUT` converts"},
		{"GMBU", "a Network Monitor capture, which `editcap -F pcap IN OUT` converts"},
		{"RTSS", "a Network Monitor 1 capture, which `editcap -F pcap IN OUT` converts"},
		{"XCP\x00", "a NetXRay or Sniffer capture, which `editcap -F pcap IN OUT` converts"},
		{"TRSNIFF data", "a Sniffer capture, which `editcap -F pcap IN OUT` converts"},
		{"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first, `zstd -dc FILE | httpctl read -`"},
		{"\xfd7zXZ\x00", "packed with xz: unpack it first, `xz -dc FILE | httpctl read -`"},
		{"BZh", "packed with bzip2: unpack it first, `bzip2 -dc FILE | httpctl read -`"},
		{"\x04\x22\x4d\x18", "packed with lz4: unpack it first, `lz4 -dc FILE | httpctl read -`"},
		{"PK\x03\x04", "a zip archive: unpack it first"},
		{"7z\xbc\xaf", "a 7z archive: unpack it first"},
		{"\x7fELF", "a program"},
	} {
		if bytes.HasPrefix(h, []byte(k.magic)) {
			return k.name
		}
	}
	if len(h) == 0 {
		return "empty"
	}
	if _, ok := newPcap(append(bytes.Clone(h), make([]byte, 24)...)); ok || bytes.HasPrefix(h, []byte("\x0a\x0d\x0d\x0a")) {
		return "cut within its header"
	}
	text := h
	for i := 0; i < utf8.UTFMax && len(text) > 0 && !utf8.Valid(text); i++ {
		text = text[:len(text)-1] // the 24 bytes may end in a character
	}
	if utf8.Valid(text) && len(text) > 0 && bytes.IndexFunc(text, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f
	}) < 0 {
		return "text"
	}
	return fmt.Sprintf("of an unknown kind, its first bytes are % x", h[:min(len(h), 8)])
}

// counting counts what is read of the file itself, packed or not.
type counting struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// Read makes the window a reader, for gzip.
func (w *window) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if _, err := w.peek(1); err != nil {
		return 0, err
	}
	n := copy(b, w.buf[w.start:w.end])
	w.start += n
	w.offset += int64(n)
	return n, nil
}

// ReadByte keeps gzip from putting a buffer of its own before the window.
func (w *window) ReadByte() (byte, error) {
	b, err := w.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// Next gives the next packet of the files, and those behind it that lie whole in the window. At
// the end of the last file it returns io.EOF; an *Error is a failure to open or to read a file,
// not damage in it.
func (f *Files) Next(ps []Packet) (int, error) {
	if f.merge != nil {
		return f.nextMerged(ps)
	}
	for f.format != nil && !f.closed.Load() {
		offset := f.window.offset
		err := f.format.next(&f.window, &ps[0])
		if err == nil {
			f.count(&ps[0])
			n := 1
			// What follows is not to move what was lent.
			for n < len(ps) && f.format.whole(&f.window) && f.format.next(&f.window, &ps[n]) == nil {
				f.count(&ps[n])
				n++
			}
			return n, nil
		}
		path := f.paths[f.current-1]
		if f.closed.Load() {
			break
		}
		switch {
		case err == io.EOF:
		case isDamage(err):
			f.warn("%s: %s at byte %d, after packet %d; the rest of the file is left out", path, cut(err), offset, f.stats.Packets)
		default:
			return 0, &Error{Op: "read", Path: path, Err: err}
		}
		if err := f.advance(); err != nil && !f.closed.Load() {
			return 0, err
		}
	}
	return 0, io.EOF
}

// count completes a packet that was read.
func (f *Files) count(p *Packet) {
	f.stats.Packets++
	f.stats.Bytes += uint64(p.Length)
	if p.Length > len(p.Data) {
		f.stats.Truncated++
	}
	p.Number = f.stats.Packets
	p.Namespace = 0
}

// isDamage tells a file that is broken from a disk that can't be read.
func isDamage(err error) bool {
	var d damage
	var c flate.CorruptInputError
	return errors.As(err, &d) || errors.As(err, &c) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader)
}

// advance goes on to the next file; without one, format is nil.
func (f *Files) advance() error {
	f.format = nil
	if f.file != os.Stdin {
		f.file.Close()
	}
	if f.current == len(f.paths) {
		return nil
	}
	f.current++
	return f.open(f.paths[f.current-1])
}

// Stats returns the counts so far. Drops is 0: files do not say.
func (f *Files) Stats() Stats { return f.stats }

// Progress returns how many bytes of the files were read, and how many there
// are: 0 when one of them is a pipe. It may be called by any goroutine.
func (f *Files) Progress() (read, total int64) { return f.read.Load(), f.total }

// Warnings returns what was wrong with the files so far, one sentence each,
// without repetition, at most 100, and one that says how many more there were. A byte's place is that in the unpacked
// file. It may be called by any goroutine.
func (f *Files) Warnings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.Clone(f.warnings)
	if f.unsaid > 0 {
		list = append(list, fmt.Sprintf("%d more warnings, of which some may be the same, are not shown; read fewer files at once to see them", f.unsaid))
	}
	return list
}

func (f *Files) warn(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.warned[s]:
	case len(f.warnings) == maxWarnings:
		f.unsaid++
	default:
		f.warned[s] = true
		f.warnings = append(f.warnings, s)
	}
}

// Close makes Next return io.EOF, at once when it waits for a pipe that was opened by name; a
// read from standard input that waits ends with its next bytes. It may be called by any
// goroutine, more than once.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Swap(true) {
		return nil
	}
	if f.file != nil && f.file != os.Stdin {
		f.file.Close()
	}
	if f.merge != nil {
		for _, in := range f.merge.open {
			in.file.Close()
		}
	}
	return nil
}
