package http1

// marks says where line feeds, carriage returns and colons are: bit i of each is set if b[i] is one.
//
//go:noescape
func marks(b *[64]byte) (lf, cr, colon uint64)
