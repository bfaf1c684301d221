package capture

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadLinks looks at interfaces, in the order of their names; at all there are if names is nil.
func ReadLinks(names []string) (links []Link) {
	if names == nil {
		entries, _ := os.ReadDir(sysNet)
		for _, e := range entries {
			if isThere(filepath.Join(sysNet, e.Name(), "ifindex")) { // there are files too
				names = append(names, e.Name())
			}
		}
	}
	frames := frameSizes()
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		l := readLink(sysNet, name)
		l.MaxFrame = frames[name]
		if l.There {
			askEthtool(&l)
		}
		links = append(links, l)
	}
	return links
}

// readLink reads what is in files.
func readLink(sys, name string) Link {
	dir := filepath.Join(sys, name)
	at := func(name string) int { return max(readInt(filepath.Join(dir, name)), 0) }
	count := func(name string) uint64 { return uint64(at(filepath.Join("statistics", name))) }
	l := Link{Name: name, There: name != "" && filepath.Base(name) == name && isThere(filepath.Join(dir, "ifindex"))}
	if !l.There {
		return l
	}
	flags, _ := strconv.ParseUint(readLine(filepath.Join(dir, "flags")), 0, 32)
	l.Up, l.Loopback, l.Promiscuous = flags&unix.IFF_UP != 0, flags&unix.IFF_LOOPBACK != 0, flags&unix.IFF_PROMISC != 0
	l.Carrier = at("carrier") == 1
	l.Hardware = isThere(filepath.Join(dir, "device"))
	if driver, err := os.Readlink(filepath.Join(dir, "device", "driver")); err == nil {
		l.Driver = filepath.Base(driver)
	}
	l.Speed, l.MTU = at("speed"), at("mtu")
	rx, _ := filepath.Glob(filepath.Join(dir, "queues", "rx-*"))
	tx, _ := filepath.Glob(filepath.Join(dir, "queues", "tx-*"))
	l.RxQueues, l.TxQueues = len(rx), len(tx)
	l.Packets, l.Missed = count("rx_packets")+count("tx_packets"), count("rx_missed_errors")+count("rx_fifo_errors")
	return l
}

// askEthtool asks for driver, features and descriptors. None of that needs a privilege.
func askEthtool(l *Link) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, l.Name); err == nil && l.Driver == "" {
		l.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	l.Offloads = features(fd, l.Name)
	ring := ethtoolRings{command: unix.ETHTOOL_GRINGPARAM}
	if ethtool(fd, l.Name, unsafe.Pointer(&ring)) == nil {
		l.RxBuffers, l.MostRxBuffers = int(ring.rx), int(ring.mostRx)
	}
}

// ethtoolRings is struct ethtool_ringparam (linux/ethtool.h).
type ethtoolRings struct {
	command, mostRx, _, _, _ uint32
	rx, _, _, _              uint32
}

// ethtool asks what the struct at data asks.
func ethtool(fd int, name string, data unsafe.Pointer) error {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = data
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

const (
	featureStrings = 4 // ETH_SS_FEATURES
	nameLength     = 32
	mostFeatures   = 512 // there are 65
)

// features asks how many there are, for their names, and which are on.
func features(fd int, name string) map[string]bool {
	count := struct {
		command, _ uint32
		mask       uint64
		n          uint32
	}{command: unix.ETHTOOL_GSSET_INFO, mask: 1 << featureStrings}
	if err := ethtool(fd, name, unsafe.Pointer(&count)); err != nil || count.mask == 0 || count.n > mostFeatures {
		return nil
	}
	names := struct {
		command, set, n uint32
		text            [mostFeatures][nameLength]byte
	}{command: unix.ETHTOOL_GSTRINGS, set: featureStrings, n: count.n}
	state := struct {
		command, size uint32
		blocks        [mostFeatures / 32]struct{ available, requested, active, neverChanged uint32 }
	}{command: unix.ETHTOOL_GFEATURES, size: (count.n + 31) / 32}
	if ethtool(fd, name, unsafe.Pointer(&names)) != nil || ethtool(fd, name, unsafe.Pointer(&state)) != nil {
		return nil
	}
	on := map[string]bool{}
	for i := range min(names.n, mostFeatures) {
		text, _, _ := bytes.Cut(names.text[i][:], []byte{0})
		on[string(text)] = state.blocks[i/32].active&(1<<(i%32)) != 0
	}
	return on
}
