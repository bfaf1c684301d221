package app

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/httpctl/httpctl/agent/accumulate"
	"github.com/httpctl/httpctl/agent/capture"
	"github.com/httpctl/httpctl/agent/inspect"
	"github.com/httpctl/httpctl/pkg/config"
)

// sample is a source of HTTP made up in memory: connections that take turns, each with a request and a response of
// 6 KB in full frames, which its client acknowledges every second frame. Frames are changed in place, so that
// little of what it measures is its own making.
type sample struct {
	frames         []sampleFrame // of an exchange
	handshake      [3][]byte
	asked, replied uint32 // octets of an exchange

	flow, exchange, frame int
	now                   int64 // the packets' clock

	length time.Duration
	begun  time.Duration // of the processor, when the first round was over
	warm   bool
	until  time.Time // however little of the processor it got
	result inspect.Sample
}

var _ capture.Source = (*sample)(nil)

type sampleFrame struct {
	data     []byte
	down     bool   // from the server
	seq, ack uint32 // within the exchange
}

const (
	sampleFlows   = 1000
	sampleSegment = 1460 // bytes in a frame of an MTU of 1500
	// samplePatience is how many times its length it waits for the processor.
	samplePatience = 3
)

// newSample makes a source that ends when it has had a processor for length.
func newSample(length time.Duration) *sample {
	s := &sample{now: time.Now().UnixNano(), length: length, until: time.Now().Add(samplePatience * length)}
	request := "GET /section-00/page.html?id=1 HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: */*\r\n\r\n"
	body := strings.Repeat("0123456789", 576)
	response := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: sample\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	s.asked, s.replied = uint32(len(request)), uint32(len(response))
	for i := range s.handshake {
		s.handshake[i] = sampleSegmentOf(i == 1, [...]byte{2, 2 | 16, 16}[i], "")
	}
	s.frames = append(s.frames, sampleFrame{data: sampleSegmentOf(false, 16|8, request)})
	for at := 0; at < len(response); at += sampleSegment {
		end := min(at+sampleSegment, len(response))
		s.frames = append(s.frames, sampleFrame{data: sampleSegmentOf(true, 16, response[at:end]), down: true, seq: uint32(at), ack: s.asked})
		if at/sampleSegment%2 == 1 {
			s.frames = append(s.frames, sampleFrame{data: sampleSegmentOf(false, 16, ""), seq: s.asked, ack: uint32(end)})
		}
	}
	return s
}

// sampleSegmentOf is a segment in an Ethernet frame, without addresses and numbers.
func sampleSegmentOf(down bool, flags byte, payload string) []byte {
	b := make([]byte, 54, 54+len(payload))
	be := binary.BigEndian
	be.PutUint16(b[12:], 0x0800)
	b[14], b[22], b[23], b[46], b[47] = 0x45, 64, 6, 5<<4, flags
	be.PutUint16(b[16:], uint16(40+len(payload)))
	client, port, server, http := 26, 34, 30, 36
	if down {
		client, port, server, http = 30, 36, 26, 34
	}
	be.PutUint32(b[client:], 0xc0000200) // 192.0.2.0
	be.PutUint16(b[port:], 0)
	be.PutUint32(b[server:], 0xc0000250) // 192.0.2.80
	be.PutUint16(b[http:], 80)
	return append(b, payload...)
}

// Next gives handshakes first, then exchanges until the time is over: one packet at a time, as all of a kind are
// made in the same place.
func (s *sample) Next(ps []capture.Packet) (int, error) {
	s.result.Packets++
	if !s.warm && s.exchange == 2 {
		s.warm, s.begun, s.result = true, threadTime(), inspect.Sample{Packets: 1}
	}
	if s.warm && s.result.Packets%4096 == 0 {
		if used := threadTime() - s.begun; used >= s.length || time.Now().After(s.until) {
			s.result.Packets--
			s.result.Time = used
			return 0, io.EOF
		}
	}
	f := sampleFrame{}
	if s.exchange == 0 { // the round in which connections are opened
		f = sampleFrame{data: s.handshake[s.frame], down: s.frame == 1, seq: uint32(s.frame / 2), ack: uint32((s.frame + 1) / 2)}
	} else {
		f = s.frames[s.frame]
		at := uint32(s.exchange - 1)
		up, down := at*s.asked+1, at*s.replied+1
		if f.down {
			f.seq, f.ack = f.seq+down, f.ack+up
		} else {
			f.seq, f.ack = f.seq+up, f.ack+down
		}
		if s.frame == 0 {
			f.data[54+13], f.data[54+14] = byte('0'+s.flow/10%10), byte('0'+s.flow%10)
		}
	}
	port := 34
	if f.down {
		port = 36
	}
	binary.BigEndian.PutUint16(f.data[port:], uint16(32768+s.flow))
	binary.BigEndian.PutUint32(f.data[38:], f.seq)
	binary.BigEndian.PutUint32(f.data[42:], f.ack)

	frames := len(s.frames)
	if s.exchange == 0 {
		frames = len(s.handshake)
	}
	if s.frame++; s.frame == frames {
		s.frame = 0
		if s.flow++; s.flow == sampleFlows {
			s.flow = 0
			s.exchange++
		}
	}
	s.now += 400
	s.result.Bytes += uint64(len(f.data))
	ps[0] = capture.Packet{Number: s.result.Packets, Time: s.now, Data: f.data, Length: len(f.data), Link: 1}
	return 1, nil
}

// Stats returns nothing: it loses nothing.
func (s *sample) Stats() capture.Stats { return capture.Stats{} }

// Close does nothing.
func (s *sample) Close() error { return nil }

// measure has one core run a pipeline on a sample for length.
func measure(settings config.Settings, cfg Config, length time.Duration) (inspect.Sample, error) {
	collector, err := accumulate.NewCollector(settings.Statistics, settings.MaxKeys, cfg.tableMemory(cfg.Capture.AllRings()))
	if err != nil {
		return inspect.Sample{}, err
	}
	local, err := newLocalAddresses(nil)
	if err != nil {
		return inspect.Sample{}, err
	}
	cfg.Capture.Ports = nil
	s := newSample(length)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // whose time is taken
		defer runtime.UnlockOSThread()
		done <- newPipeline(s, cfg, settings.MaxStrLength, &readSink{collector: collector}, local).run()
	}()
	err = <-done
	return s.result, err
}
