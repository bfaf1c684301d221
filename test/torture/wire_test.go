package torture

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// wire is the end of a veth pair on whose other end an agent captures.
type wire struct {
	fd   int
	port int
	// sent is the oracle: what was put on the wire, when.
	sent []request
	// frames is the same as a capture would hold it, of the first requests.
	frames []testkit.Frame
}

// keepFrames is how many requests of a wire are kept for others to count.
const keepFrames = 2000

// newWire opens an interface of a namespace for sending.
func newWire(namespace, name string) (*wire, error) {
	type opened struct {
		fd  int
		err error
	}
	done := make(chan opened)
	go func() {
		// Its thread ends with it, and with that its namespace.
		runtime.LockOSThread()
		fd, err := func() (int, error) {
			ns, err := os.Open(filepath.Join("/run/netns", namespace))
			if err != nil {
				return 0, err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return 0, fmt.Errorf("setns: %w", err)
			}
			iface, err := net.InterfaceByName(name)
			if err != nil {
				return 0, err
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return 0, fmt.Errorf("packet socket: %w", err)
			}
			return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: iface.Index})
		}()
		done <- opened{fd, err}
	}()
	o := <-done
	return &wire{fd: o.fd}, o.err
}

func (w *wire) close() { unix.Close(w.fd) }

// exchange puts a whole connection with one request on the wire.
func (w *wire) exchange(id int) error {
	w.port = (w.port + 1) % 40000
	c := testkit.NewConversation(fmt.Sprintf("192.0.2.1:%d", 20000+w.port), "192.0.2.80:80")
	c.ClientSeq += uint32(id) * 7919
	c.Open()
	c.ToServer(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: example.org\r\n\r\n", id))
	c.ToClient("HTTP/1.1 204 No Content\r\n\r\n")
	c.Close()
	before := time.Now().UnixNano()
	for i, f := range c.Frames {
		if _, err := unix.Write(w.fd, f.Data); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		c.Frames[i].Time = time.Now().UnixNano()
	}
	w.sent = append(w.sent, request{id: id, before: before, after: time.Now().UnixNano()})
	if len(w.sent) <= keepFrames {
		w.frames = append(w.frames, c.Frames...)
	}
	return nil
}

// Traffic passes in this part of an interval, so that the time at which the kernel saw a packet
// is in the same interval as that at which it was sent.
const trafficFrom, trafficTo = 0.05, 0.7

// play puts requests on the wire until stop is closed, perSecond of them each interval; the numbers begin
// at first.
func (w *wire) play(stop <-chan struct{}, width time.Duration, first, perSecond int) error {
	perInterval := int(width.Seconds() * float64(perSecond))
	step := time.Duration(float64(width) * (trafficTo - trafficFrom) / float64(perInterval))
	for id := first; ; {
		start := time.Now().Truncate(width).Add(width)
		for i := range perInterval {
			due := start.Add(time.Duration(float64(width)*trafficFrom) + time.Duration(i)*step)
			select {
			case <-stop:
				return nil
			case <-time.After(time.Until(due)):
			}
			if time.Since(start) > time.Duration(float64(width)*trafficTo) {
				break // this machine is busy with something else
			}
			if err := w.exchange(id); err != nil {
				return err
			}
			id++
		}
	}
}

// file writes what was kept as a capture file.
func (w *wire) file(t *testing.T) string { return testkit.WriteFile(t, w.frames...) }
