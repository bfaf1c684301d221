package capture

import "github.com/httpctl/httpctl/pkg/config"

// Link is what the kernel says of an interface. What it does not say is zero.
type Link struct {
	Name string
	// Driver is that of the hardware, or of the kind of interface there is instead (veth, tun, bridge).
	Driver string
	// There is false for an interface that does not exist; then all else is zero.
	There bool
	// Up is what the administrator wants, Carrier what the cable says.
	Up, Carrier bool
	// Hardware is false for what the kernel makes up; Loopback is one of these.
	Hardware, Loopback bool
	// Promiscuous interfaces take frames that are addressed to others.
	Promiscuous bool
	// Speed is in Mb/s, 0 if it is not known.
	Speed              int
	MTU                int
	RxQueues, TxQueues int
	// Offloads says what is on, by the names that `ethtool -k` has for the kernel's features; nil if that is not known.
	Offloads map[string]bool
	// MaxFrame is the largest frame it may hand over, without its link header.
	MaxFrame config.Size
	// RxBuffers are the descriptors of a receive queue, MostRxBuffers how many there may be.
	RxBuffers, MostRxBuffers int
	// Counts since the interface was made: packets both ways; packets for which the hardware had no room.
	Packets, Missed uint64
}

// Features of a link that decide what frames look like here.
const (
	GRO         = "rx-gro"
	HardwareGRO = "rx-gro-hw"
	LRO         = "rx-lro"
	GSO         = "tx-generic-segmentation"
	TSO         = "tx-tcp-segmentation"
	RxChecksum  = "rx-checksum"
	RxVLAN      = "rx-vlan-hw-parse"
)

// TxChecksum are the features of which one lets the hardware fill checksums in.
var TxChecksum = []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"}
