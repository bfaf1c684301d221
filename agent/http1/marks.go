package http1

import "encoding/binary"

// marksPortable is marks without the processor's vectors.
func marksPortable(b *[64]byte) (lf, cr, colon uint64) {
	for i := 0; i < len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		lf |= equals(w, '\n') << i
		cr |= equals(w, '\r') << i
		colon |= equals(w, ':') << i
	}
	return lf, cr, colon
}

// equals says which of the eight bytes of w are c: bit i is that of the i-th lowest.
func equals(w, c uint64) uint64 {
	const each, low = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f
	x := w ^ c*each
	x = ^(x&low + low | x | low)             // the highest bit of each byte that is 0
	return x >> 7 * 0x0102040810204080 >> 56 // bit 8i to bit 56+i; no two meet on the way
}
