package exchange

import "math/bits"

// Suspicion is a set of reasons why two servers might frame a request
// differently, and so take a part of it for another request (smuggling). The
// zero value is a request that every server frames alike.
type Suspicion uint16

// The reasons, in the order of their counters.
const (
	LengthAndCoding  Suspicion = 1 << iota // Content-Length beside Transfer-Encoding (RFC 9112 section 6.1)
	DifferingLengths                       // Content-Length values that differ
	InvalidLength                          // a Content-Length that is not a number, is signed, or exceeds 64 bits
	UnknownCoding                          // a transfer coding nobody registered, or identity
	ChunkedNotLast                         // a Transfer-Encoding whose last coding is not chunked
	ChunkedTwice                           // chunked applied twice
	CodingInOld                            // Transfer-Encoding in HTTP/1.0
	SpaceBeforeColon                       // white space between a framing field's name and its colon
	FoldedFraming                          // a folded Content-Length or Transfer-Encoding (obs-fold)
	BareCR                                 // a CR that is not part of a line end
	MixedLineEnds                          // some lines end in CRLF, some in LF alone
	DisguisedName                          // a name that only differs from a framing field's in octets no name may have
	ChunkFraming                           // a chunk whose size or line end is not as RFC 9112 section 7.1 has it
)

var suspicionNames = [...]string{
	"content-length with transfer-encoding", "differing content-length", "invalid content-length",
	"unknown transfer coding", "chunked is not last", "chunked twice", "transfer-encoding in http/1.0",
	"space before colon", "folded framing field", "bare CR", "mixed line ends", "disguised field name",
	"chunk framing",
}

// Names lists the reasons in words; it is empty and not nil if there is none.
func (s Suspicion) Names() []string {
	names := []string{}
	for i, n := range suspicionNames {
		if s&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// Suspect counts one more request for each reason of s, which are new to the
// request: was is what was counted of it before.
func (c *Counters) Suspect(s, was Suspicion) {
	if s &^= was; s == 0 {
		return
	}
	if was == 0 {
		c[SmugglingSuspects]++
	}
	for ; s != 0; s &= s - 1 {
		c[SuspectLengthAndCoding+Counter(bits.TrailingZeros16(uint16(s)))]++
	}
}
