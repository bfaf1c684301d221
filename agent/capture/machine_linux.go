package capture

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/httpctl/httpctl/pkg/config"
	"golang.org/x/sys/unix"
)

// sysNet is where the kernel shows the interfaces of a network namespace.
const sysNet = "/sys/class/net"

// ThisMachine looks at the machine that this process runs on. What cannot be read is unknown.
func ThisMachine(interfaces []string) Machine {
	return Machine{Cores: runtime.GOMAXPROCS(0), Hardware: hardwareOf(sysNet, interfaces), MaxFrame: largestFrame()}
}

// hardwareOf lists the devices that carry interfaces, each once. For "any" these are all there are: what
// else there is hands on what they bring, or has none.
func hardwareOf(sys string, interfaces []string) (list []Hardware) {
	names := interfaces
	if slices.Contains(names, Any) {
		names = nil
		entries, _ := os.ReadDir(sys)
		for _, e := range entries {
			if isThere(filepath.Join(sys, e.Name(), "device")) {
				names = append(names, e.Name())
			}
		}
		if len(names) == 0 {
			return []Hardware{{}}
		}
	}
	const deepest = 8
	var add func(name string, depth int)
	add = func(name string, depth int) {
		dir := filepath.Join(sys, name)
		h := Hardware{}
		if isThere(filepath.Join(dir, "device")) {
			h = Hardware{Name: name, Speed: max(readInt(filepath.Join(dir, "speed")), 0)}
		} else if below, _ := filepath.Glob(filepath.Join(dir, "lower_*")); len(below) > 0 && depth < deepest {
			for _, link := range below {
				add(strings.TrimPrefix(filepath.Base(link), "lower_"), depth+1)
			}
			return
		}
		if !slices.ContainsFunc(list, func(have Hardware) bool { return have.Name == h.Name }) {
			list = append(list, h)
		}
	}
	for _, name := range names {
		if !strings.ContainsAny(name, "/*?[\\") && name != "" && name != "." && name != ".." {
			add(name, 0)
		}
	}
	return list
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// readInt reads a file with a number, or returns -1.
func readInt(path string) int {
	n, err := strconv.Atoi(readLine(path))
	if err != nil {
		return -1
	}
	return n
}

func readLine(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// Attributes of an interface (linux/if_link.h) that say how large its frames may become: when sent,
// and when put together on arrival, with the limits for IPv4 that came later.
var frameLimits = []uint16{unix.IFLA_GSO_MAX_SIZE, unix.IFLA_GRO_MAX_SIZE, unix.IFLA_GSO_IPV4_MAX_SIZE, unix.IFLA_GRO_IPV4_MAX_SIZE}

// largestFrame looks at every interface. Not at those captured only: what one of them
// hands on may be as large as where it came from allows.
func largestFrame() (largest config.Size) {
	for _, size := range frameSizes() {
		largest = max(largest, size)
	}
	return largest
}

// frameSizes asks the kernel how large the frames of each interface may become.
func frameSizes() map[string]config.Size {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return nil
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil
	}
	sizes := map[string]config.Size{}
	for i := range messages {
		if messages[i].Header.Type != syscall.RTM_NEWLINK {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&messages[i])
		if err != nil {
			continue
		}
		name, largest := "", config.Size(0)
		for _, a := range attributes {
			switch {
			case a.Attr.Type == unix.IFLA_IFNAME:
				name = unix.ByteSliceToString(a.Value)
			case slices.Contains(frameLimits, a.Attr.Type) && len(a.Value) == 4:
				largest = max(largest, config.Size(binary.NativeEndian.Uint32(a.Value)))
			}
		}
		sizes[name] = largest
	}
	return sizes
}
