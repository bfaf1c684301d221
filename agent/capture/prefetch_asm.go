//go:build amd64 || arm64

package capture

// prefetch has the processor load the five cache lines at p into its caches, without waiting for them. Any
// address will do.
//
//go:noescape
func prefetch(p *byte)
