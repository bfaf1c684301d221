package bucket

// Encode appends the encoding of b to dst, with its checksum. Equal buckets encode to equal bytes.
func Encode(dst []byte, b *Bucket) ([]byte, error) { panic("stub") }

// DecodeHeader verifies the checksum of data and decodes its header only.
func DecodeHeader(data []byte) (*Header, error) { panic("stub") }

// Decode verifies the checksum of data and decodes it. With names, only the tables of those names are decoded.
func Decode(data []byte, names ...string) (*Bucket, error) { panic("stub") }
