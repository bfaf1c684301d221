// Package stream keeps the table of flows and turns their segments into
// ordered bytes and gaps, in bounded memory.
//
// # Order
//
// Bytes of one direction come in sequence, each once; of bytes that were sent
// twice the first delivered copy wins. Across directions they come in causal
// order: a segment that acknowledges bytes of the other direction waits until
// those were delivered. So packets that a capture shows out of order, or an
// acknowledgement that it shows before its data, are not loss.
//
// # Waiting
//
// What cannot be delivered yet is copied and held. The wait for missing bytes,
// a hole, ends in a gap when any of these is reached:
//
//   - hole_timeout of packet time since the packet that showed the hole (an
//     eighth of it for a direction of which no packet was ever seen, and no wait
//     at all after the first such disappointment: half of the traffic is not
//     captured);
//   - 256 further packets of the connection, if the receiver acknowledged
//     bytes beyond the hole: it has them, no retransmission will come, and a
//     capture that merely reorders does so by less. A hole that the receiver does
//     not acknowledge is loss in the network, and waits for its retransmission;
//   - max_flow_buffer bytes held for the connection, or max_buffer for all,
//     where the hole whose time is up first gives way first.
//
// # Ends
//
// FIN is delivered in sequence like a byte, RST too if its sequence number is the expected one
// or up to 1 MiB ahead; what was received is delivered before Closed. An RST slightly behind is
// what a receiver ignores (RFC 5961 section 3.2): it is believed if the connection is silent
// for some seconds afterwards. A closed connection leaves a tombstone until 30 s after its last
// data, so that late packets do not look like a new one; tombstones are the first to give way
// to new flows. A SYN with another initial sequence number on a live connection ends it ByReuse
// when the other end answers it or its sender goes on from it, so that a forged one ends
// nothing. Of two answers to one SYN that one counts which the client acknowledges.
package stream

import "net/netip"

// Direction is one side of a connection.
type Direction uint8

// ToServer carries what the connection's client end sends, ToClient the rest.
// Which end is the client is a guess from the handshake, else from ports, else the
// first sender; whoever reads the bytes may know better.
const (
	ToServer Direction = iota
	ToClient
)

// Conn is one TCP connection. The pointer is valid until Handler.Closed returns. It is of 128
// bytes, of which the first cache line is what a segment needs.
type Conn struct {
	// ID numbers the connections of a pipeline from 1.
	ID uint64
	// User is for the handler.
	User any
	// Handshake says that the opening SYN was seen, so that the first byte is
	// the first byte of the connection.
	Handshake bool

	opened bool // the handler was told
	state  conn // what the table keeps

	Client, Server netip.AddrPort
}

// Chunk is the next stretch of one direction: bytes or a gap.
// The seam by which plaintext from other sources will enter.
type Chunk struct {
	Dir Direction
	// Offset of the first byte in its direction since the first byte seen.
	Offset uint64
	// Data is borrowed for the call. It is nil for a gap.
	Data []byte
	// Gap is the length of a gap: bytes that were sent but not captured.
	Gap uint64
	// Time and Packet are those of the packet that brought the bytes; for a
	// gap, of the packet that showed that they are lost.
	Time   int64
	Packet uint64
}

// CloseReason says why a connection left the table.
type CloseReason uint8

// Why a connection left the table.
const (
	ByFIN      CloseReason = iota // both directions finished
	ByRST                         // reset
	ByReuse                       // a new connection took its ports
	ByTimeout                     // nothing heard for flow_idle_timeout
	ByEviction                    // flow limit, or a panic while it was handled
	ByDrain                       // end of the source
)

var closeReasons = [...]string{"fin", "rst", "reuse", "timeout", "eviction", "drain"}

// String returns a lower-case word.
func (r CloseReason) String() string {
	if int(r) < len(closeReasons) {
		return closeReasons[r]
	}
	return "unknown"
}

// Coming is one or several segments in a row that are about to be handled.
type Coming struct {
	Conn *Conn
	// Length of their payloads; a FIN counts as a byte.
	Length int
}

// Handler reads the connections. All calls for one pipeline come from one
// goroutine, in packet order. Bytes come in causal order: a chunk is delivered after every
// byte of the other direction that its sender had acknowledged, or those are declared a gap.
//
// A handler must not call the table. A panic in a handler costs that
// connection: it is counted, closed ByEviction and its later bytes are passed over.
type Handler interface {
	// Coming says what may come next, so that the handler can have what it keeps of these
	// connections loaded into the processor's caches, of all at once. It is a hint: any of it may not come,
	// a connection may be named twice, and one that was not opened yet is. It must
	// not panic: it speaks of many connections, so there is not one that a panic could cost.
	Coming(next []Coming)
	// Opened is called before the first chunk of a connection that carries bytes.
	Opened(c *Conn, time int64)
	// Data delivers the next chunk. Returning false says that the rest of the connection
	// is of no interest: its bytes are then counted, not ordered nor delivered, and only
	// Closed follows.
	Data(c *Conn, ch *Chunk) bool
	// Finished is called when one direction has ended (FIN), after its last chunk.
	Finished(c *Conn, dir Direction, time int64)
	// Closed is called once, last.
	Closed(c *Conn, reason CloseReason, time int64)
}
