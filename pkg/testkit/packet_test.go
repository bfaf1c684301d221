package testkit_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// What the builder makes must be what an independent decoder reads.
func TestConversation(t *testing.T) {
	for _, ends := range [][2]string{{"192.0.2.1:40000", "192.0.2.2:80"}, {"[2001:db8::1]:40000", "[2001:db8::2]:80"}} {
		c := testkit.NewConversation(ends[0], ends[1])
		c.MSS = 10
		c.Open()
		c.ToServer("hello, server")
		c.LoseToClient(3)
		c.ToClient("hello")
		c.Close()

		type row struct {
			fromClient bool
			seq, ack   uint32
			payload    string
		}
		want := []row{
			{true, 1000, 0, ""}, {false, 5000, 1001, ""}, {true, 1001, 5001, ""},
			{true, 1001, 5001, "hello, ser"}, {true, 1011, 5001, "ver"}, {false, 5004, 1014, "hello"},
			{true, 1014, 5009, ""}, {false, 5009, 1015, ""}, {true, 1015, 5010, ""},
		}
		r, err := pcapgo.NewReader(bytes.NewReader(testkit.Pcap(1, c.Frames...)))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			data, ci, err := r.ReadPacketData()
			if err == io.EOF {
				if i != len(want) {
					t.Errorf("%d frames, want %d", i, len(want))
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := ci.Timestamp.Sub(testkit.Start); got != time.Duration(i)*c.Step {
				t.Errorf("frame %d at %v, want %v", i, got, time.Duration(i)*c.Step)
			}
			p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
			if err := p.ErrorLayer(); err != nil {
				t.Fatal(err.Error())
			}
			tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			got := row{tcp.SrcPort == 40000, tcp.Seq, tcp.Ack, string(tcp.Payload)}
			if got != want[i] {
				t.Errorf("frame %d = %+v, want %+v", i, got, want[i])
			}
			if err := tcp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
			if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
				t.Errorf("frame %d: checksums %v %v", i, err, mismatches)
			}
		}
	}
}
