package stream

import (
	"testing"
	"unsafe"
)

// TestSizes: what the memory of an agent is reckoned with, and a segment's cache lines are counted by.
func TestSizes(t *testing.T) {
	if c, e := unsafe.Sizeof(Conn{}), unsafe.Sizeof(entry{}); c != 128 || e != 128 {
		t.Errorf("a Conn takes %d bytes, an entry %d, want 128 each", c, e)
	}
}
