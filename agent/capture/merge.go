package capture

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
)

// maxMerged is how many files are read at once, with 1 MiB for each.
const maxMerged = 32

// merger reads several files as one capture, in order of their packets' times: those of both ports of a tap,
// or parts of a rotated one in whatever order they were named. A file is opened once the
// time of its first packet is reached, so that of parts one after another two are open at most.
type merger struct {
	waiting []part // by the time of their first packets, then as named
	open    []*input
	windows [][]byte // to be used again
	told    bool
	failed  error // to be returned once the packets before it are delivered
}

// part is a file that was not opened yet.
type part struct {
	path  string
	first int64
}

// input is a file that is read.
type input struct {
	path   string
	file   *os.File
	window window
	format format
	// offset is where what is read next begins.
	offset int64
	// packet comes next if ready, else it was given away.
	packet Packet
	ready  bool
	nth    uint64
}

// maxLook is how much of a file, unpacked, is looked through for its first packet.
const maxLook = 16 << 20

// look finds the time of a file's first packet, for its place among others. That of a file without any, or none in its
// first maxLook bytes, is the earliest: what is wrong with it is told first, and what it has comes in order all the same, as it
// is open then.
func (f *Files) look(path string) (part, error) {
	if err := f.open(path); err != nil {
		return part{}, err
	}
	defer f.file.Close()
	f.window.limit = maxLook
	p := Packet{Time: math.MinInt64}
	if ng, ok := f.format.(*pcapngFile); ok {
		ng.warn = func(string) {} // it is told when it is read
	}
	if f.format.next(&f.window, &p) != nil {
		p.Time = math.MinInt64
	}
	return part{path, p.Time}, nil
}

// nextMerged is Next for several files.
func (f *Files) nextMerged(ps []Packet) (int, error) {
	for n := 0; ; n++ {
		if f.closed.Load() {
			return 0, io.EOF
		}
		if err := f.merge.failed; err != nil {
			f.merge.failed = nil
			return 0, err
		}
		least, err := f.least(n > 0)
		switch {
		case err == errMore:
			return n, nil
		case err != nil && f.closed.Load():
			return 0, io.EOF
		case err != nil && n > 0:
			f.merge.failed = err
			return n, nil
		case err != nil:
			return 0, err
		case least == nil && n == 0:
			return 0, io.EOF
		case least == nil, n == len(ps):
			return n, nil
		}
		ps[n] = least.packet
		least.ready = false
		f.count(&ps[n])
	}
}

// errMore says that the next packet is not in its window to its end: what was lent has to come back first.
var errMore = errors.New("more has to be read")

// least returns the file whose packet is the next by time, nil at the end of all. lent says that
// packets of this batch are borrowed from the windows.
func (f *Files) least(lent bool) (*input, error) {
	m := f.merge
	for {
		var least *input
		for i := 0; i < len(m.open); i++ {
			in := m.open[i]
			if !in.ready {
				if lent && !in.format.whole(&in.window) {
					return nil, errMore
				}
				more, err := f.fetch(in)
				if err != nil {
					return nil, err
				}
				if !more {
					f.drop(i)
					i--
					continue
				}
			}
			if least == nil || in.packet.Time < least.packet.Time {
				least = in
			}
		}
		if len(m.waiting) == 0 || least != nil && m.waiting[0].first > least.packet.Time {
			return least, nil
		}
		if len(m.open) >= maxMerged {
			if !m.told {
				m.told = true
				f.warn("%s: begins while %d other files go on, and is read when one of them has ended; what belongs together is missed so (mergecap makes one file of them)", m.waiting[0].path, maxMerged)
			}
			return least, nil
		}
		if err := f.enter(); err != nil {
			return nil, err
		}
	}
}

// enter opens the next file.
func (f *Files) enter() error {
	m := f.merge
	path := m.waiting[0].path
	m.waiting = m.waiting[1:]
	f.window = window{}
	if n := len(m.windows); n > 0 {
		f.window.buf, m.windows = m.windows[n-1], m.windows[:n-1]
	}
	if err := f.open(path); err != nil {
		return err
	}
	in := &input{path: path, file: f.file, window: f.window, format: f.format}
	f.window = window{}
	f.mu.Lock()
	m.open = append(m.open, in)
	f.mu.Unlock()
	return nil
}

// fetch reads the next packet of a file. It reports whether there is one.
func (f *Files) fetch(in *input) (bool, error) {
	in.offset = in.window.offset
	err := in.format.next(&in.window, &in.packet)
	switch {
	case err == nil:
		in.nth++
		in.ready = true
		return true, nil
	case err == io.EOF, f.closed.Load():
	case isDamage(err):
		f.warn("%s: %s at byte %d, after packet %d; the rest of the file is left out", in.path, cut(err), in.offset, in.nth)
	default:
		return false, &Error{Op: "read", Path: in.path, Err: err}
	}
	return false, nil
}

// drop closes a file that has ended.
func (f *Files) drop(i int) {
	m := f.merge
	in := m.open[i]
	in.file.Close()
	f.mu.Lock()
	m.open = slices.Delete(m.open, i, i+1)
	f.mu.Unlock()
	if len(in.window.buf) == windowSize {
		m.windows = append(m.windows, in.window.buf)
	}
}
