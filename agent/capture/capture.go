// Package capture brings packets in: from an AF_PACKET ring, or from pcap and
// pcapng files. Both give the same Packet, so that everything behind does not
// know which it was.
package capture

import "errors"

// Packet is one captured frame. Data is borrowed from the source until the
// next call of Next, that of all packets which one call gave.
type Packet struct {
	// Number counts the packets of the source from 1.
	Number uint64
	// Time of capture, nanoseconds since the Unix epoch.
	Time int64
	// Data is what was captured, Length how long the frame was.
	Data   []byte
	Length int
	// Link is the type of Data's first header, as a LINKTYPE_ number of the
	// pcap registry (1 Ethernet, 101 raw IP, 113 Linux cooked, 276 cooked v2 ...).
	Link uint16
	// Interface is the kernel's index for live packets; for files the number
	// of the interface block.
	Interface int
	// Namespace tells apart captures that may reuse the same addresses:
	// the network namespace of a live source, 0 otherwise.
	Namespace uint32
}

// ErrIdle is returned by Next when a live source had nothing for its timeout.
// The pipeline then advances its clock and calls Next again.
var ErrIdle = errors.New("no packet within the timeout")

// Source is where packets come from. Next and Stats are called by one
// goroutine; Close may be called by another and makes Next return io.EOF.
type Source interface {
	// Next fills the first packets of ps, which is not empty, and returns how many: those that
	// are there without waiting, at least one. With none it returns io.EOF at the end,
	// ErrIdle when a live source has nothing now, and any other error when the source is broken.
	Next(ps []Packet) (int, error)
	// Stats returns the counts since the source was opened.
	Stats() Stats
	Close() error
}

// Stats is what a source knows about itself.
type Stats struct {
	// Packets delivered by Next, and their original length.
	Packets, Bytes uint64
	// Drops counts packets that the kernel had no room for.
	Drops uint64
	// Freezes counts the times that the kernel found no room at all and stopped.
	Freezes uint64
	// Truncated counts packets whose Data is shorter than Length.
	Truncated uint64
}
