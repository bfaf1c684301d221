// Package stream keeps the table of flows and turns their segments into
// ordered bytes and gaps, in bounded memory.
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

// Conn is one TCP connection. The pointer is valid until Handler.Closed returns.
type Conn struct {
	// ID numbers the connections of a pipeline from 1.
	ID             uint64
	Client, Server netip.AddrPort
	// Handshake says that the opening SYN was seen, so that the first byte is
	// the first byte of the connection.
	Handshake bool
	// User is for the handler.
	User any

	state conn // what the table keeps
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
	ByReuse                       // a new SYN took its ports
	ByTimeout                     // nothing heard for flow_idle_timeout
	ByEviction                    // flow limit or memory ceiling
	ByDrain                       // end of the source
)

// Handler reads the connections. All calls for one pipeline come from one
// goroutine, in packet order. Bytes come in causal order: a chunk is delivered after every
// byte of the other direction that its sender had acknowledged, or those are declared a gap.
type Handler interface {
	// Opened is called before the first chunk of a connection that carries bytes.
	Opened(c *Conn, time int64)
	// Data delivers the next chunk. Returning false says that the rest of the connection
	// is of no interest: its bytes are then counted, not ordered nor delivered.
	Data(c *Conn, ch *Chunk) bool
	// Finished is called when one direction has ended (FIN), after its last chunk.
	Finished(c *Conn, dir Direction, time int64)
	// Closed is called once, last.
	Closed(c *Conn, reason CloseReason, time int64)
}
