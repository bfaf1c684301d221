// Package boltfile looks over the pages of a bbolt file before bbolt follows
// them. bbolt checks its two meta pages only: a branch page that names itself,
// or a page before it, makes a cursor go round until memory is used up, and a
// wrong count or length makes it read or free what is not there. Neither can be
// stopped once it has begun; a page that this package has passed does not begin it.
//
// The layout is that of bbolt's internal/common (page.go, meta.go, bucket.go):
// numbers are in the byte order of the machine.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
)

// ErrDamaged is wrapped by every error about what the file holds; an error
// without it is a failure to read.
var ErrDamaged = errors.New("the database file is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

const (
	pageHeader   = 16 // id 8, flags 2, count 2, overflow 4
	element      = 16 // of a branch: position 4, key length 4, page 8; of a leaf: flags, position, key length, value length, 4 each
	bucketHeader = 16 // root page 8, sequence 8

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketFlag = 0x01 // of a leaf's element: its value is a bucket

	magic      = 0xED0CDAED
	noFreelist = ^uint64(0)
	firstPage  = 2 // after the meta pages
)

var order = binary.NativeEndian

// File is the newest state of a bbolt file that nobody writes to, or, during a
// transaction, the state of that transaction. It is safe for concurrent use.
type File struct {
	r                     io.ReaderAt
	pageSize              int
	root, freelist, pages uint64
	txid                  uint64

	// unused has a bit for each page that the free list named when Top or All read it.
	unused []uint64

	// OneMeta says that only one of the two meta pages is sound. If the other was
	// the newer one, the last transaction is gone, and what it freed may be in use.
	OneMeta bool
}

// Read finds the newest sound meta page of a file of that many bytes.
// An empty file, which bbolt fills, gives nil.
func Read(r io.ReaderAt, size int64) (*File, error) {
	if size == 0 {
		return nil, nil
	}
	// The second page's place depends on the page size, which the first tells;
	// where that is damaged, the sizes that there are get tried.
	var best *File
	for _, at := range []int64{0, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		f := readMeta(r, at)
		if f != nil && (best == nil || f.txid > best.txid) && (at == 0 || at == int64(f.pageSize)) {
			best = f
		}
	}
	switch {
	case best == nil:
		return nil, damaged("neither of its meta pages can be read")
	case best.pages > uint64(size)/uint64(best.pageSize):
		return nil, damaged("it is cut off: %d bytes, its newest state needs %d pages of %d", size, best.pages, best.pageSize)
	case best.root >= best.pages || best.freelist >= best.pages && best.freelist != noFreelist:
		return nil, damaged("its meta page points outside the file")
	}
	best.OneMeta = readMeta(r, 0) == nil || readMeta(r, int64(best.pageSize)) == nil
	return best, nil
}

// readMeta reads a meta page at an offset, nil if there is none: after the page
// header magic, version, page size, flags (4 bytes each), root page, sequence,
// free list page, pages in use, transaction, and FNV-1a over all these (8 bytes each).
func readMeta(r io.ReaderAt, at int64) *File {
	var b [pageHeader + 64]byte
	if _, err := r.ReadAt(b[:], at); err != nil {
		return nil
	}
	p := b[pageHeader:]
	h := fnv.New64a()
	h.Write(p[:56])
	size := order.Uint32(p[8:])
	if order.Uint32(p) != magic || h.Sum64() != order.Uint64(p[56:]) || size < 1024 || size > 1<<20 {
		return nil
	}
	return &File{r: r, pageSize: int(size), root: order.Uint64(p[16:]), freelist: order.Uint64(p[32:]),
		pages: order.Uint64(p[40:]), txid: order.Uint64(p[48:])}
}

// At returns the file as a transaction sees it: size is what bbolt's
// (*Tx).Size returns. Only trees can be looked over in it.
func (f *File) At(size int64) *File {
	c := *f
	c.pages = uint64(size) / uint64(f.pageSize)
	return &c
}

// All looks over the free list and every tree, and that no page is in two
// places. It reads all of the file but the values, and is not safe for concurrent use.
func (f *File) All() error {
	f.unused = nil
	w := walker{f: f, seen: map[uint64]bool{}, levels: math.MaxInt}
	if err := w.tree(f.root); err != nil {
		return err
	}
	return w.free()
}

// Top looks over the free list, the tree of the root bucket and those of the
// buckets in it, and not further. It must not be called at the same time as others.
func (f *File) Top() error {
	f.unused = nil
	w := walker{f: f, seen: map[uint64]bool{}, levels: 1}
	if err := w.tree(f.root); err != nil {
		return err
	}
	return w.free()
}

// Tree looks over the tree with that root page, which bbolt's (*Bucket).Root
// returns; 0 is a bucket within a value of the tree that holds it, and was
// looked over with that. The tree must hold no buckets. After Top, its pages must
// not be on the free list of that time: it must not have been changed since.
func (f *File) Tree(root uint64) error {
	if root == 0 {
		return nil
	}
	w := walker{f: f, seen: map[uint64]bool{}, flat: true}
	return w.tree(root)
}

// walker goes through trees of pages.
type walker struct {
	f      *File
	seen   map[uint64]bool
	flat   bool     // no element may be a bucket
	levels int      // of buckets that are entered
	spare  [][]byte // rooms for pages
}

// claim notes the pages of a run; none may be in two places.
func (w *walker) claim(id uint64, overflow uint32) error {
	if id < firstPage || id >= w.f.pages || uint64(overflow) >= w.f.pages-id {
		return damaged("page %d with %d more is named, it has %d", id, overflow, w.f.pages)
	}
	for p := id; p <= id+uint64(overflow); p++ {
		if w.seen[p] {
			return damaged("page %d is in two places", p)
		}
		if i := p / 64; i < uint64(len(w.f.unused)) && w.f.unused[i]&(1<<(p%64)) != 0 {
			return damaged("page %d is free and in use", p)
		}
		w.seen[p] = true
	}
	return nil
}

func (w *walker) tree(id uint64) error {
	if id < firstPage || id >= w.f.pages {
		return damaged("page %d is named, it has %d", id, w.f.pages)
	}
	first := w.buffer()
	if _, err := w.f.r.ReadAt(first, int64(id)*int64(w.f.pageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := order.Uint32(first[12:])
	if order.Uint64(first) != id {
		return damaged("page %d says that it is page %d", id, order.Uint64(first))
	}
	if err := w.claim(id, overflow); err != nil {
		return err
	}
	p := page{w: w, id: id, first: first, size: (int64(overflow) + 1) * int64(w.f.pageSize),
		more: io.NewSectionReader(w.f.r, int64(id)*int64(w.f.pageSize), (int64(overflow)+1)*int64(w.f.pageSize))}
	children, err := p.check()
	w.spare = append(w.spare, first)
	if err != nil {
		return err
	}
	for c := range slices.Chunk(children, 8) {
		if err := w.tree(order.Uint64(c)); err != nil {
			return err
		}
	}
	return nil
}

// buffer returns room for a page.
func (w *walker) buffer() []byte {
	if n := len(w.spare); n > 0 {
		b := w.spare[n-1]
		w.spare = w.spare[:n-1]
		return b
	}
	return make([]byte, w.f.pageSize)
}

// page is a run of pages, or the one within the value of a small bucket.
type page struct {
	w     *walker
	id    uint64 // 0 for one within a value
	first []byte // its beginning
	size  int64
	more  io.ReaderAt
}

// bytes returns n bytes from an offset; the caller has checked that they are in the page.
func (p *page) bytes(at, n int64) ([]byte, error) {
	if at+n <= int64(len(p.first)) {
		return p.first[at : at+n], nil
	}
	b := make([]byte, n)
	_, err := p.more.ReadAt(b, at)
	return b, err
}

// check looks over the page and returns the pages below it, 8 bytes each.
func (p *page) check() (children []byte, err error) {
	flags, count := order.Uint16(p.first[8:]), int64(order.Uint16(p.first[10:]))
	branch := flags == branchPage
	if !branch && flags != leafPage || branch && (p.id == 0 || count == 0) {
		return nil, damaged("page %d has kind %#x and %d entries", p.id, flags, count)
	}
	body := pageHeader + count*element
	if body > p.size {
		return nil, damaged("page %d has %d entries in %d bytes", p.id, count, p.size)
	}
	elements, err := p.bytes(pageHeader, count*element)
	if err != nil {
		return nil, fmt.Errorf("read page %d: %w", p.id, err)
	}
	var last []byte
	for i := range count {
		e := elements[i*element:]
		at, keyLen, valueLen, kind := int64(order.Uint32(e)), int64(order.Uint32(e[4:])), int64(0), uint32(0)
		if !branch {
			kind, at, keyLen, valueLen = order.Uint32(e), int64(order.Uint32(e[4:])), int64(order.Uint32(e[8:])), int64(order.Uint32(e[12:]))
		}
		at += pageHeader + i*element
		if at < body || at+keyLen+valueLen > p.size || kind > bucketFlag {
			return nil, damaged("entry %d of page %d has kind %d and lies at %d with %d+%d bytes of %d", i, p.id, kind, at, keyLen, valueLen, p.size)
		}
		// Keys beyond the first page are in order if their checksums say so.
		if at+keyLen <= int64(len(p.first)) {
			key := p.first[at : at+keyLen]
			if i > 0 && last != nil && bytes.Compare(last, key) >= 0 {
				return nil, damaged("entries %d and %d of page %d are out of order", i-1, i, p.id)
			}
			last = key
		} else {
			last = nil
		}
		switch {
		case branch:
			children = append(children, e[8:16]...)
		case kind == bucketFlag:
			if err := p.bucket(at, keyLen, valueLen); err != nil {
				return nil, err
			}
		}
	}
	return children, nil
}

// bucket looks into an element whose value is a bucket: its header, then, if
// the root page in that is 0, a leaf page without buckets.
func (p *page) bucket(at, keyLen, valueLen int64) error {
	if p.w.flat || p.id == 0 || valueLen < bucketHeader {
		return damaged("page %d has a bucket of %d bytes where none can be", p.id, valueLen)
	}
	value, err := p.bytes(at+keyLen, valueLen)
	if err != nil {
		return fmt.Errorf("read page %d: %w", p.id, err)
	}
	root := order.Uint64(value)
	inline := value[bucketHeader:]
	switch {
	case root == 0 && len(inline) < pageHeader:
		return damaged("page %d has a bucket of %d bytes", p.id, valueLen)
	case root == 0:
		in := page{w: p.w, first: inline, size: int64(len(inline)), more: bytes.NewReader(inline)}
		_, err := in.check()
		return err
	case root < firstPage || root >= p.w.f.pages:
		return damaged("page %d has a bucket at page %d, it has %d", p.id, root, p.w.f.pages)
	case p.w.levels == 0:
		return nil
	}
	p.w.levels--
	defer func() { p.w.levels++ }()
	return p.w.tree(root)
}

// free looks over the free list: page numbers in rising order, none of them in
// use. A count of 0xFFFF means that the first number is the count.
func (w *walker) free() error {
	id := w.f.freelist
	if id == noFreelist {
		return nil
	}
	var h [pageHeader + 8]byte
	at := int64(id) * int64(w.f.pageSize)
	if _, err := w.f.r.ReadAt(h[:], at); err != nil {
		return fmt.Errorf("read free list: %w", err)
	}
	overflow, count, skip := order.Uint32(h[12:]), uint64(order.Uint16(h[10:])), int64(0)
	if order.Uint64(h[:]) != id || order.Uint16(h[8:]) != freelistPage {
		return damaged("the free list at page %d is none", id)
	}
	if err := w.claim(id, overflow); err != nil {
		return err
	}
	if count == 0xFFFF {
		count, skip = order.Uint64(h[pageHeader:]), 8
	}
	if room := (uint64(overflow)+1)*uint64(w.f.pageSize) - pageHeader - uint64(skip); count > room/8 {
		return damaged("the free list has %d pages in %d bytes", count, room)
	}
	list := io.NewSectionReader(w.f.r, at+pageHeader+skip, int64(count)*8)
	last, unused := uint64(firstPage-1), make([]uint64, w.f.pages/64+1)
	buf := make([]byte, 64<<10)
	for off := int64(0); off < list.Size(); {
		b := buf[:min(int64(len(buf)), list.Size()-off)]
		if _, err := list.ReadAt(b, off); err != nil {
			return fmt.Errorf("read free list: %w", err)
		}
		off += int64(len(b))
		for c := range slices.Chunk(b, 8) {
			p := order.Uint64(c)
			switch {
			case p <= last || p >= w.f.pages:
				return damaged("the free list names page %d after %d, it has %d", p, last, w.f.pages)
			case w.seen[p]:
				return damaged("page %d is free and in use", p)
			}
			last = p
			unused[p/64] |= 1 << (p % 64)
		}
	}
	w.f.unused = unused
	return nil
}
