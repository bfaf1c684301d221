//go:build !amd64 && !arm64

package capture

// prefetch does nothing here.
func prefetch(*byte) {}
