//go:build !linux

package bolt

// dropCache does nothing: there is no portable way to drop cached pages.
func dropCache(string) {}

// unmapPages does nothing.
func unmapPages(uintptr, int64) {}

// inodeOf returns 0: the holder of a lock cannot be looked up.
func inodeOf(string) uint64 { return 0 }
