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
	mathbits "math/bits"
	"slices"
)

// ErrDamaged is wrapped by every error about what the file holds; an error
// without it is a failure to read.
var ErrDamaged = errors.New("the database file is damaged")

// ErrShared is wrapped, beside ErrDamaged, by errors about a page that is in two places, or free and in use.
// What it holds may be sound, and is not to be freed.
var ErrShared = errors.New("a page has two owners")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// shared makes an error that wraps ErrDamaged and ErrShared, and reads as one about damage.
func shared(format string, args ...any) error { return sharedError{damaged(format, args...)} }

type sharedError struct{ error }

func (e sharedError) Unwrap() []error { return []error{e.error, ErrShared} }

const (
	pageHeader   = 16 // id 8, flags 2, count 2, overflow 4
	element      = 16 // of a branch: position 4, key length 4, page 8; of a leaf: flags, position, key length, value length, 4 each
	bucketHeader = 16 // root page 8, sequence 8

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	maxKey     = 32768
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

	// unused has a bit for each page that the free list named when Top, All or Walk read it.
	unused bits

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

// Size is how many bytes of the file its newest state needs.
func (f *File) Size() int64 { return int64(f.pages) * int64(f.pageSize) }

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
	w := walker{f: f, seen: newBits(f.pages), levels: math.MaxInt}
	if err := w.tree(f.root, nil, nil); err != nil {
		return err
	}
	return w.free()
}

// Top looks over the free list, the tree of the root bucket and those of the
// buckets in it, and not further. It must not be called at the same time as others.
func (f *File) Top() error {
	f.unused = nil
	w := walker{f: f, seen: pageSet{}, levels: 1}
	if err := w.tree(f.root, nil, nil); err != nil {
		return err
	}
	return w.free()
}

// Usage says what became of the pages of a file that Walk went through.
type Usage struct {
	PageSize    int
	Pages       uint64 // all
	Free        uint64 // on the free list
	Unaccounted uint64 // neither in use nor free; only told where nothing is damaged
}

// maxTwice is how many pages in two places Walk names all buckets of.
const maxTwice = 1024

// Walk looks over the free list and every tree as All does, and goes on past what is damaged: found
// is told of each damage and of the names of the buckets that lead to it: none for the tree of the root, and
// nil for what is no tree, meta pages and free list. path is borrowed. Where a page is in two places, both buckets are told. Memory is an eighth
// of a byte for each page twice, and what one path of pages takes. It is not safe for concurrent use.
func (f *File) Walk(found func(path [][]byte, err error)) Usage {
	f.unused = nil
	sound, twice := true, pageSet{}
	tell := func(path [][]byte, err error) {
		sound = false
		found(path, err)
	}
	for id := range uint64(firstPage) {
		// The checksum of a meta page leaves out its first 16 bytes, which are the next commit's to write anew.
		var h [pageHeader]byte
		if _, err := f.r.ReadAt(h[:], int64(id)*int64(f.pageSize)); err != nil {
			tell(nil, fmt.Errorf("read page %d: %w", id, err))
		} else if order.Uint64(h[:]) != id || order.Uint16(h[8:]) != metaPage {
			tell(nil, damaged("page %d says that it is page %d, of kind %#x", id, order.Uint64(h[:]), order.Uint16(h[8:])))
		}
	}
	if f.OneMeta {
		tell(nil, damaged("one of its two meta pages cannot be read: the last commit may be gone"))
	}
	w := walker{f: f, seen: newBits(f.pages), levels: math.MaxInt}
	if err := w.free(); err != nil {
		tell(nil, err)
	}
	w.found, w.twice, w.path = tell, twice, [][]byte{}
	if err := w.tree(f.root, nil, nil); err != nil {
		tell(w.path, err)
	}
	u := Usage{PageSize: f.pageSize, Pages: f.pages, Free: f.unused.count()}
	if sound {
		u.Unaccounted = f.pages - firstPage - u.Free - (w.seen.(bits)).count()
	}
	if len(twice) == 0 {
		return u
	}
	// Once more, for who had them first.
	w = walker{f: f, seen: newBits(f.pages), levels: math.MaxInt, found: func([][]byte, error) {}, twice: twice, first: found, path: [][]byte{}}
	_ = w.tree(f.root, nil, nil)
	return u
}

// Tree looks over the tree with that root page, which bbolt's (*Bucket).Root
// returns; 0 is a bucket within a value of the tree that holds it, and was
// looked over with that. The tree must hold no buckets. After Top, its pages must
// not be on the free list of that time: it must not have been changed since.
func (f *File) Tree(root uint64) error {
	if root == 0 {
		return nil
	}
	w := walker{f: f, seen: pageSet{}, flat: true}
	return w.tree(root, nil, nil)
}

// Leaves looks over the tree with that root page as Tree does, and calls f for each entry,
// with the page that it begins on. key and value are borrowed. Where f returns an error, it ends with that.
func (f *File) Leaves(root uint64, entry func(page uint64, key, value []byte) error) error {
	if root == 0 {
		return nil
	}
	w := walker{f: f, seen: pageSet{}, flat: true, entry: entry}
	return w.tree(root, nil, nil)
}

// pageNumbers are a set of pages.
type pageNumbers interface {
	has(page uint64) bool
	add(page uint64)
}

// bits are a set of most pages of a file: an eighth of a byte for each that there is.
type bits []uint64

func newBits(pages uint64) bits { return make(bits, pages/64+1) }
func (b bits) has(page uint64) bool {
	return page/64 < uint64(len(b)) && b[page/64]&(1<<(page%64)) != 0
}
func (b bits) add(page uint64) { b[page/64] |= 1 << (page % 64) }

func (b bits) count() (n uint64) {
	for _, word := range b {
		n += uint64(mathbits.OnesCount64(word))
	}
	return n
}

// pageSet is a set of few pages of a file that may be large.
type pageSet map[uint64]bool

func (s pageSet) has(page uint64) bool { return s[page] }
func (s pageSet) add(page uint64)      { s[page] = true }

// walker goes through trees of pages.
type walker struct {
	f      *File
	seen   pageNumbers
	flat   bool     // no element may be a bucket
	levels int      // of buckets that are entered
	spare  [][]byte // rooms for pages

	// Of Walk only: found is told of damage, of the bucket at path, and the walk goes on.
	found func(path [][]byte, err error)
	path  [][]byte
	twice pageSet                        // pages that were met twice
	first func(path [][]byte, err error) // is told who has them first
	// Of Leaves only.
	entry func(page uint64, key, value []byte) error
}

// claim notes the pages of a run; none may be in two places.
func (w *walker) claim(id uint64, overflow uint32) error {
	if id < firstPage || id >= w.f.pages || uint64(overflow) >= w.f.pages-id {
		return damaged("page %d with %d more is named, it has %d", id, overflow, w.f.pages)
	}
	for p := id; p <= id+uint64(overflow); p++ {
		if w.first != nil && w.twice.has(p) && !w.seen.has(p) {
			w.first(w.path, shared("page %d is in two places", p))
		}
		if w.seen.has(p) {
			if w.twice != nil && len(w.twice) < maxTwice {
				w.twice.add(p)
			}
			return shared("page %d is in two places", p)
		}
		if w.f.unused.has(p) {
			return shared("page %d is free and in use", p)
		}
		w.seen.add(p)
	}
	return nil
}

// tree looks over the pages from id on. Keys must be least or more, and less than end, if these are not nil.
func (w *walker) tree(id uint64, least, end []byte) error {
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
	p := page{w: w, id: id, first: first, least: least, end: end, size: (int64(overflow) + 1) * int64(w.f.pageSize),
		more: io.NewSectionReader(w.f.r, int64(id)*int64(w.f.pageSize), (int64(overflow)+1)*int64(w.f.pageSize))}
	children, err := p.check()
	w.spare = append(w.spare, first)
	if err != nil {
		return err
	}
	for i, c := range children {
		end := end
		if i+1 < len(children) {
			end = children[i+1].least
		}
		if err := w.tree(c.page, c.least, end); err != nil {
			if w.found == nil {
				return err
			}
			w.found(w.path, err)
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

	least, end []byte // bounds of its keys, nil for none
}

// child is a page that an entry of a branch names.
type child struct {
	page  uint64
	least []byte // the entry's key
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

// check looks over the page and returns the pages below it.
func (p *page) check() (children []child, err error) {
	flags, count := order.Uint16(p.first[8:]), int64(order.Uint16(p.first[10:]))
	branch := flags == branchPage
	// Only the one page of an empty bucket has no entries.
	if !branch && flags != leafPage || branch && p.id == 0 || count == 0 && (branch || p.least != nil) {
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
	next := body // where the next entry lies: bbolt packs them
	for i := range count {
		e := elements[i*element:]
		at, keyLen, valueLen, kind := int64(order.Uint32(e)), int64(order.Uint32(e[4:])), int64(0), uint32(0)
		if !branch {
			kind, at, keyLen, valueLen = order.Uint32(e), int64(order.Uint32(e[4:])), int64(order.Uint32(e[8:])), int64(order.Uint32(e[12:]))
		}
		at += pageHeader + i*element
		if at != next || at+keyLen+valueLen > p.size || keyLen > maxKey || kind > bucketFlag {
			return nil, damaged("entry %d of page %d has kind %d and lies at %d, not %d, with %d+%d bytes of %d", i, p.id, kind, at, next, keyLen, valueLen, p.size)
		}
		next += keyLen + valueLen
		// Where Tree looks, keys beyond the first page are in order if their checksums say so.
		if at+keyLen <= int64(len(p.first)) || !p.w.flat {
			key, err := p.bytes(at, keyLen)
			if err != nil {
				return nil, fmt.Errorf("read page %d: %w", p.id, err)
			}
			if i > 0 && last != nil && bytes.Compare(last, key) >= 0 {
				return nil, damaged("entries %d and %d of page %d are out of order", i-1, i, p.id)
			}
			// The first is that of the page above: bbolt looks it up there by this one when the page is written anew, and
			// would leave the old page in the tree if it did not find it.
			if i == 0 && p.least != nil && !bytes.Equal(key, p.least) || p.end != nil && bytes.Compare(key, p.end) >= 0 {
				return nil, damaged("entry %d of page %d is not where the pages above it say", i, p.id)
			}
			last = key
		} else {
			last = nil
		}
		switch {
		case branch:
			key, err := p.bytes(at, keyLen)
			if err != nil {
				return nil, fmt.Errorf("read page %d: %w", p.id, err)
			}
			children = append(children, child{order.Uint64(e[8:]), bytes.Clone(key)})
		case kind == bucketFlag:
			err := p.bucket(at, keyLen, valueLen)
			if err != nil && p.w.found == nil {
				return nil, err
			}
			if err != nil {
				p.w.found(slices.Concat(p.w.path, [][]byte{p.name(at, keyLen)}), err)
			}
		case p.w.entry != nil:
			b, err := p.bytes(at, keyLen+valueLen)
			if err != nil {
				return nil, fmt.Errorf("read page %d: %w", p.id, err)
			}
			if err := p.w.entry(p.id, b[:keyLen], b[keyLen:]); err != nil {
				return nil, err
			}
		}
	}
	// A run that is longer than what it holds has another's pages at its end.
	if p.id != 0 && p.size-next >= int64(p.w.f.pageSize) || p.id == 0 && p.size != next {
		return nil, damaged("page %d has %d bytes, what it holds takes %d", p.id, p.size, next)
	}
	return children, nil
}

// name is a copy of a key.
func (p *page) name(at, keyLen int64) []byte {
	key, _ := p.bytes(at, keyLen) // a name is for telling only
	return bytes.Clone(key)
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
	case root < firstPage || root >= p.w.f.pages || len(inline) > 0:
		return damaged("page %d has a bucket of %d bytes at page %d, it has %d", p.id, valueLen, root, p.w.f.pages)
	case p.w.levels == 0:
		return nil
	}
	p.w.levels--
	defer func() { p.w.levels++ }()
	if p.w.found != nil {
		path := p.w.path
		p.w.path = append(path[:len(path):len(path)], p.name(at, keyLen))
		defer func() { p.w.path = path }()
	}
	return p.w.tree(root, nil, nil)
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
	// The page was made before the pages that it takes left the list.
	size := func(n uint64) uint64 { return (pageHeader + 8*n + uint64(skip)) / uint64(w.f.pageSize) }
	if n := uint64(overflow); n < size(count) || n > size(count+n+1) {
		return damaged("the free list has %d pages in a run of %d", count, n+1)
	}
	list := io.NewSectionReader(w.f.r, at+pageHeader+skip, int64(count)*8)
	last, unused := uint64(firstPage-1), newBits(w.f.pages)
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
			case w.seen.has(p):
				return shared("page %d is free and in use", p)
			}
			last = p
			unused.add(p)
		}
	}
	w.f.unused = unused
	return nil
}
