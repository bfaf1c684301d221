//go:build linux

package powercut

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// disk is a directory that forgets at a power cut what was not synced: any of the sectors written to a
// file since its last fsync, of each any of its versions; any of its sizes since; and
// any of the names made, changed or removed since the directory's last fsync. Nothing is
// promised beyond that: a name that was not synced may go although its file was.
type disk struct {
	mu    sync.Mutex
	files map[string]*file // as programs see it
	// names are the changes to the directory since its last fsync; synced is what it was then.
	names  []func(map[string]*file)
	synced map[string]*file

	// writes counts what changes files and names; the power goes in the middle of the number cutAt.
	writes, cutAt int
	cut           bool          // the power has gone: nothing is written any more
	gone          chan struct{} // closed then
	syncs         int
}

// file is one file. Its content is whole sectors, beyond the size zero.
type file struct {
	data []byte
	size int
	mode uint32
	// versions of each sector since the last fsync, the first being the one that was synced; and of the size.
	sectors map[int][][]byte
	sizes   []int
}

func newDisk() *disk {
	return &disk{files: map[string]*file{}, synced: map[string]*file{}, gone: make(chan struct{})}
}

// tick counts a change and reports whether it may be made. The change at which the power goes is made
// and not synced: it may be there afterwards, in part.
func (d *disk) tick() bool {
	if d.cut {
		return false
	}
	d.writes++
	if d.writes == d.cutAt {
		d.off()
		return true // it was under way
	}
	return true
}

// off has the power go. d.mu is held.
func (d *disk) off() {
	if !d.cut {
		d.cut = true
		close(d.gone)
	}
}

func (f *file) write(data []byte, off int) {
	end := off + len(data)
	if need := (end + sector - 1) / sector * sector; need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	first, last := off/sector, (end-1)/sector
	if len(data) > 0 {
		for i := first; i <= last; i++ {
			if f.sectors[i] == nil {
				f.sectors[i] = [][]byte{bytes.Clone(f.data[i*sector : (i+1)*sector])}
			}
		}
		copy(f.data[off:], data)
		for i := first; i <= last; i++ {
			f.sectors[i] = append(f.sectors[i], bytes.Clone(f.data[i*sector:(i+1)*sector]))
		}
	}
	if end > f.size {
		f.resize(end)
	}
}

func (f *file) resize(size int) {
	if need := (size + sector - 1) / sector * sector; need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	if f.sizes == nil {
		f.sizes = []int{f.size}
	}
	if size < f.size { // what is cut off reads as zero, should the file grow again
		clear(f.data[size:])
	}
	f.size = size
	f.sizes = append(f.sizes, size)
}

func (f *file) sync() { f.sectors, f.sizes = map[int][][]byte{}, nil }

// after returns a file as the power cut leaves it. keep decides how much of what was not synced is there.
func (f *file) after(rng *rand.Rand, keep float64) *file {
	out := &file{data: bytes.Clone(f.data), size: f.size, mode: f.mode, sectors: map[int][][]byte{}}
	pick := func(versions int) int { // mostly the oldest or the newest
		switch p := rng.Float64(); {
		case p >= keep:
			return 0
		case rng.IntN(4) == 0:
			return rng.IntN(versions)
		}
		return versions - 1
	}
	for _, i := range slices.Sorted(maps.Keys(f.sectors)) {
		copy(out.data[i*sector:], f.sectors[i][pick(len(f.sectors[i]))])
	}
	if len(f.sizes) > 0 {
		out.size = f.sizes[pick(len(f.sizes))]
	}
	clear(out.data[min(out.size, len(out.data)):])
	return out
}

// killed returns the disk as a program that was killed leaves it: nothing is forgotten yet, and nothing synced.
func (d *disk) killed() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off()
	next := newDisk()
	next.files, next.names, next.synced = d.files, d.names, d.synced
	return next
}

// after returns the disk as it is once the power is back.
func (d *disk) after(rng *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off()
	next := newDisk()
	keep := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	names := maps.Clone(d.synced)
	for _, change := range d.names {
		if rng.Float64() < keep {
			change(names)
		}
	}
	for name, f := range names {
		next.files[name] = f.after(rng, keep)
	}
	next.synced = maps.Clone(next.files)
	return next
}

// mount serves a disk at a directory until the function that it returns is called.
func (d *disk) mount(t testing.TB, dir string) (unmount func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system of its own (CAP_SYS_ADMIN, /dev/fuse)")
	}
	server, err := fs.Mount(dir, &root{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "powercut", Name: "powercut", DisableXAttrs: true}})
	if err != nil {
		t.Skipf("needs /dev/fuse and CAP_SYS_ADMIN: %v", err)
	}
	// go-fuse lets programs that are started inherit its connection, which would then not end with this one.
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == "/dev/fuse" {
			n, _ := strconv.Atoi(fd.Name())
			syscall.CloseOnExec(n)
		}
	}
	return func() {
		// By force, which ends the connection: a process with a mount namespace of its own that was made meanwhile
		// (ip netns exec) has a copy of the mount, and would keep it going.
		if err := syscall.Unmount(dir, syscall.MNT_FORCE); err != nil {
			t.Fatalf("unmount: %v", err)
		}
		server.Wait()
	}
}

// root is the directory.
type root struct {
	fs.Inode
	disk *disk
}

// node is a file in it.
type node struct {
	fs.Inode
	disk *disk
	file *file
}

var (
	_ fs.NodeLookuper  = (*root)(nil)
	_ fs.NodeCreater   = (*root)(nil)
	_ fs.NodeUnlinker  = (*root)(nil)
	_ fs.NodeRenamer   = (*root)(nil)
	_ fs.NodeLinker    = (*root)(nil)
	_ fs.NodeReaddirer = (*root)(nil)
	_ fs.NodeFsyncer   = (*root)(nil)
	_ fs.NodeStatfser  = (*root)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
)

func (r *root) child(ctx context.Context, f *file, out *fuse.EntryOut) *fs.Inode {
	f.attr(&out.Attr)
	for _, c := range r.Children() {
		if n, ok := c.Operations().(*node); ok && n.file == f {
			return c
		}
	}
	return r.NewInode(ctx, &node{disk: r.disk, file: f}, fs.StableAttr{Mode: syscall.S_IFREG})
}

func (f *file) attr(a *fuse.Attr) {
	a.Mode, a.Size, a.Nlink = syscall.S_IFREG|f.mode, uint64(f.size), 1
	a.Blocks = uint64(len(f.data) / sector)
}

func (r *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	f := r.disk.files[name]
	if f == nil {
		return nil, syscall.ENOENT
	}
	return r.child(ctx, f, out), 0
}

// rename makes a change to names, now and, if the directory is synced, for good.
func (d *disk) rename(change func(map[string]*file)) syscall.Errno {
	if !d.tick() {
		return syscall.EIO
	}
	change(d.files)
	d.names = append(d.names, change)
	return 0
}

func (r *root) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	f := r.disk.files[name]
	if f != nil && flags&syscall.O_EXCL != 0 {
		return nil, nil, 0, syscall.EEXIST
	}
	if f == nil {
		f = &file{mode: mode & 0o777, sectors: map[int][][]byte{}}
		if errno := r.disk.rename(func(names map[string]*file) { names[name] = f }); errno != 0 {
			return nil, nil, 0, errno
		}
	}
	return r.child(ctx, f, out), nil, 0, 0
}

func (r *root) Unlink(_ context.Context, name string) syscall.Errno {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if r.disk.files[name] == nil {
		return syscall.ENOENT
	}
	return r.disk.rename(func(names map[string]*file) { delete(names, name) })
}

func (r *root) Rename(_ context.Context, from string, _ fs.InodeEmbedder, to string, _ uint32) syscall.Errno {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	f := r.disk.files[from]
	if f == nil {
		return syscall.ENOENT
	}
	return r.disk.rename(func(names map[string]*file) {
		delete(names, from)
		names[to] = f
	})
}

func (r *root) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	n, ok := target.(*node)
	if !ok {
		return nil, syscall.EPERM
	}
	if r.disk.files[name] != nil {
		return nil, syscall.EEXIST
	}
	if errno := r.disk.rename(func(names map[string]*file) { names[name] = n.file }); errno != 0 {
		return nil, errno
	}
	return r.child(ctx, n.file, out), 0
}

func (r *root) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	var entries []fuse.DirEntry
	for name := range r.disk.files {
		entries = append(entries, fuse.DirEntry{Name: name, Mode: syscall.S_IFREG})
	}
	return fs.NewListDirStream(entries), 0
}

// Fsync of the directory makes its names durable.
func (r *root) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if !r.disk.tick() || r.disk.cut {
		return syscall.EIO
	}
	r.disk.names, r.disk.synced = nil, maps.Clone(r.disk.files)
	return 0
}

func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail, out.NameLen = 4096, 1<<30, 1<<29, 1<<29, 255
	return 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) { return nil, 0, 0 }

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if off >= int64(n.file.size) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(bytes.Clone(n.file.data[off:min(int(off)+len(dest), n.file.size)])), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if !n.disk.tick() {
		return 0, syscall.EIO
	}
	n.file.write(data, int(off))
	return uint32(len(data)), 0
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	// The power may go while a disk is asked to sync: it has not said that it is done.
	if !n.disk.tick() || n.disk.cut {
		return syscall.EIO
	}
	n.disk.syncs++
	n.file.sync()
	return 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.file.attr(&out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if !n.disk.tick() {
			return syscall.EIO
		}
		n.file.resize(int(size))
	}
	if mode, ok := in.GetMode(); ok {
		n.file.mode = mode & 0o777
	}
	n.file.attr(&out.Attr)
	return 0
}

// TestCutForgets: what the disk keeps and forgets, without a mount.
func TestCutForgets(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	for range 400 {
		d := newDisk()
		f := &file{sectors: map[int][][]byte{}}
		d.mu.Lock()
		_ = d.rename(func(names map[string]*file) { names["a"] = f })
		d.names, d.synced = nil, maps.Clone(d.files)
		d.mu.Unlock()
		f.write(bytes.Repeat([]byte("1"), 2*sector), 0)
		f.sync()
		f.write(bytes.Repeat([]byte("2"), 2*sector), 0)
		f.write(bytes.Repeat([]byte("3"), sector), 2*sector)
		_ = d.rename(func(names map[string]*file) { names["b"] = f })
		g := d.after(rng)
		a := g.files["a"]
		if a == nil || a.size < 2*sector {
			t.Fatal("what was synced is gone")
		}
		what := ""
		for i := 0; i < a.size; i += sector {
			s := a.data[i : i+sector]
			if !bytes.Equal(s, bytes.Repeat(s[:1], sector)) {
				t.Fatal("a sector is torn")
			}
			what += fmt.Sprintf("%c", max(s[0], '0'))
		}
		if g.files["b"] != nil {
			what += "b"
		}
		seen[what]++
		if k := d.killed(); k.files["b"] == nil || k.files["a"].size != 3*sector {
			t.Fatal("a kill has lost something")
		}
	}
	for _, want := range []string{"11", "12", "21", "22", "223", "220", "110", "113", "11b", "223b"} {
		if seen[want] == 0 {
			t.Errorf("no cut has left %q, of %v", want, seen)
		}
	}
}
