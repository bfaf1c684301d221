package testkit

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"
)

// A Frame is one packet as a capture would hold it.
type Frame struct {
	// Time is in nanoseconds since the Unix epoch.
	Time int64
	Data []byte
}

// Start is the time of the first frame of a Conversation: 2026-01-01T00:00:00Z.
var Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A Conversation scripts one TCP connection and collects its frames. The
// sequence and acknowledgement numbers follow from what was said; change the
// fields between calls to say something else.
//
//	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
//	c.Open()
//	c.ToServer("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
//	c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
//	c.Close()
//	file := testkit.WriteFile(t, c.Frames...)
type Conversation struct {
	Client, Server netip.AddrPort
	// ClientSeq and ServerSeq are the next sequence number of each end. They
	// start at 1000 and 5000.
	ClientSeq, ServerSeq uint32
	// MSS is the largest payload of one frame: 1460.
	MSS int
	// Now is the time of the next frame and advances by Step (1 ms) with each.
	Now  time.Time
	Step time.Duration
	// Wrap makes a frame of an IP packet; nil puts an Ethernet header before it.
	Wrap func(ip []byte) []byte
	// Frames is what was said so far.
	Frames []Frame
}

// NewConversation returns a conversation between two addresses of the form
// "192.0.2.1:40000" or "[2001:db8::1]:80". It panics if they are not.
func NewConversation(client, server string) *Conversation {
	return &Conversation{
		Client: netip.MustParseAddrPort(client), Server: netip.MustParseAddrPort(server),
		ClientSeq: 1000, ServerSeq: 5000, MSS: 1460, Now: Start, Step: time.Millisecond,
	}
}

// Open adds the three packets of the handshake.
func (c *Conversation) Open() {
	mss := []byte{2, 4, byte(c.MSS >> 8), byte(c.MSS)}
	c.add(TCP{Src: c.Client, Dst: c.Server, Seq: c.ClientSeq, Flags: SYN, Options: mss})
	c.ClientSeq++
	c.add(TCP{Src: c.Server, Dst: c.Client, Seq: c.ServerSeq, Ack: c.ClientSeq, Flags: SYN | ACK, Options: mss})
	c.ServerSeq++
	c.FromClient(ACK, nil)
}

// ToServer sends data from the client, in frames of at most MSS bytes.
func (c *Conversation) ToServer(data string) {
	for b := []byte(data); len(b) > 0; {
		n := min(len(b), c.MSS)
		c.FromClient(ACK|PSH, b[:n])
		b = b[n:]
	}
}

// ToClient sends data from the server, in frames of at most MSS bytes.
func (c *Conversation) ToClient(data string) {
	for b := []byte(data); len(b) > 0; {
		n := min(len(b), c.MSS)
		c.FromServer(ACK|PSH, b[:n])
		b = b[n:]
	}
}

// Close ends both directions: FIN from the client, FIN from the server, ACK.
func (c *Conversation) Close() {
	c.FromClient(FIN|ACK, nil)
	c.FromServer(FIN|ACK, nil)
	c.FromClient(ACK, nil)
}

// Reset sends an RST from the client.
func (c *Conversation) Reset() { c.FromClient(RST|ACK, nil) }

// LoseToServer lets the client send n bytes that no frame carries: a gap.
func (c *Conversation) LoseToServer(n int) { c.ClientSeq += uint32(n) }

// LoseToClient is LoseToServer for the other direction.
func (c *Conversation) LoseToClient(n int) { c.ServerSeq += uint32(n) }

// FromClient adds one segment with the given flags and payload.
func (c *Conversation) FromClient(flags uint8, payload []byte) {
	c.add(TCP{Src: c.Client, Dst: c.Server, Seq: c.ClientSeq, Ack: c.ServerSeq, Flags: flags, Payload: payload})
	c.ClientSeq = advance(c.ClientSeq, flags, payload)
}

// FromServer adds one segment with the given flags and payload.
func (c *Conversation) FromServer(flags uint8, payload []byte) {
	c.add(TCP{Src: c.Server, Dst: c.Client, Seq: c.ServerSeq, Ack: c.ClientSeq, Flags: flags, Payload: payload})
	c.ServerSeq = advance(c.ServerSeq, flags, payload)
}

func advance(seq uint32, flags uint8, payload []byte) uint32 {
	seq += uint32(len(payload))
	if flags&FIN != 0 {
		seq++
	}
	return seq
}

func (c *Conversation) add(s TCP) {
	ip := s.IP()
	frame := ip
	if c.Wrap != nil {
		frame = c.Wrap(ip)
	} else {
		frame = Ethernet(etherTypeOf(s.Src.Addr()), ip)
	}
	c.Frames = append(c.Frames, Frame{Time: c.Now.UnixNano(), Data: frame})
	c.Now = c.Now.Add(c.Step)
}

// Merge returns the frames of several conversations in order of time.
func Merge(conversations ...*Conversation) []Frame {
	var all []Frame
	for _, c := range conversations {
		all = append(all, c.Frames...)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Time < all[j].Time })
	return all
}

// Pcap returns a classic capture file (little endian, nanoseconds) of the
// frames, whose link type is a LINKTYPE_ number: 1 for Ethernet.
func Pcap(link uint32, frames ...Frame) []byte {
	var b bytes.Buffer
	le := binary.LittleEndian
	header := make([]byte, 24)
	le.PutUint32(header[0:], 0xa1b23c4d)
	le.PutUint16(header[4:], 2)
	le.PutUint16(header[6:], 4)
	le.PutUint32(header[16:], 262144)
	le.PutUint32(header[20:], link)
	b.Write(header)
	record := make([]byte, 16)
	for _, f := range frames {
		le.PutUint32(record[0:], uint32(f.Time/1e9))
		le.PutUint32(record[4:], uint32(f.Time%1e9))
		le.PutUint32(record[8:], uint32(len(f.Data)))
		le.PutUint32(record[12:], uint32(len(f.Data)))
		b.Write(record)
		b.Write(f.Data)
	}
	return b.Bytes()
}

// WriteFile writes Ethernet frames as a capture file into a directory of the
// test and returns its path.
func WriteFile(t testing.TB, frames ...Frame) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "capture.pcap")
	if err := os.WriteFile(path, Pcap(1, frames...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
