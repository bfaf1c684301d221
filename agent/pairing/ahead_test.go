package pairing

import (
	"testing"
	"unsafe"
)

// TestSizes: what the memory of an agent is reckoned with, and Coming counts on whole cache lines.
func TestSizes(t *testing.T) {
	if c, e := unsafe.Sizeof(conn{}), unsafe.Sizeof(pair{}); c > 512 || e > pairBytes {
		t.Errorf("a connection takes %d bytes, want at most 512; an exchange %d, want at most %d", c, e, pairBytes)
	}
}
