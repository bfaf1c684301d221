package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/testkit"
)

// attack says how many of each hostile thing a capture has.
type attack struct {
	halfOpen, endless, names, chunks, holes, deep int
}

// TestMemoryUnderAttack has `httpctl read` read connections that are opened and left, heads without
// end, names without number, chunks of absurd size, segments that never join, and packets in packets,
// with 10,000 honest exchanges in between: all of those are counted, and the program stays
// below its ceiling. HTTPCTL_ATTACK=full (make attack) is the whole of it, a few minutes; by default it is a tenth.
func TestMemoryUnderAttack(t *testing.T) {
	a := attack{halfOpen: 100_000, endless: 100_000, names: 1_000_000, chunks: 10_000, holes: 100_000, deep: 10_000}
	switch {
	case os.Getenv("HTTPCTL_ATTACK") == "full":
		a = attack{halfOpen: 1_000_000, endless: 1_000_000, names: 10_000_000, chunks: 100_000, holes: 1_000_000, deep: 100_000}
	case testing.Short():
		a = attack{halfOpen: 10_000, endless: 10_000, names: 100_000, chunks: 1_000, holes: 10_000, deep: 1_000}
	}
	for _, ceiling := range []config.Size{256 * config.MiB, 96 * config.MiB} { // the default, and the least
		t.Run(ceiling.String(), func(t *testing.T) {
			a.run(t, ceiling)
		})
	}
}

const honest = 10_000

func (a attack) run(t *testing.T, ceiling config.Size) {
	cmd := exec.Command(program(t, "httpctl"), "read", "-o", "json", "--top", "5", "-")
	cmd.Env = append(os.Environ(), "HTTPCTL_AGENT_MEMORY="+ceiling.String())
	cmd.Stderr = os.Stderr
	var out bytes.Buffer
	cmd.Stdout = &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Not ru_maxrss: it begins with the memory of this process, which has forked.
	peak, done := make(chan int64, 1), make(chan struct{})
	go func() { peak <- watchMemory(cmd.Process.Pid, done) }()
	w := bufio.NewWriterSize(in, 1<<20)
	a.write(newRaw(w))
	err = w.Flush()
	_ = in.Close()
	if e := cmd.Wait(); e != nil {
		err = e
	}
	close(done)
	kib := <-peak
	if err != nil {
		t.Fatal(err)
	}

	var answer struct {
		Packets, Requests int64
		Loss              map[string]int64
		Tops              map[string][]struct {
			Key  string
			Hits int64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	for dimension, key := range map[string]string{"section": "honest.example.org/honest", "domain": "honest.example.org", "user_agent": "honest", "status": "200"} {
		found := false
		for _, row := range answer.Tops[dimension] {
			if row.Key == key {
				found = true
				if row.Hits != honest {
					t.Errorf("top %s: %s = %d, want %d", dimension, key, row.Hits, honest)
				}
			}
		}
		if !found {
			t.Errorf("top %s has no %s: %v", dimension, key, answer.Tops[dimension])
		}
	}
	if want := int64(honest + a.names + a.chunks); answer.Requests != want {
		t.Errorf("%d requests, want %d", answer.Requests, want)
	}
	reasons := []string{"evicted_flows", "evicted_keys", "undecoded_packets", "evicted_exchanges", "malformed"}
	switch {
	case testing.Short():
		reasons = []string{"evicted_keys", "undecoded_packets", "malformed"}
	case a.endless < 1_000_000: // with more, connections go before their unfinished heads do
		reasons = append(reasons, "evicted_bytes")
	}
	for _, reason := range reasons {
		if answer.Loss[reason] == 0 {
			t.Errorf("nothing was counted as %s: %v", reason, answer.Loss)
		}
	}
	t.Logf("%d packets in %.1f s; at most %d MiB resident of %v; %v", answer.Packets, time.Since(begin).Seconds(), kib>>10, ceiling, answer.Loss)
	if runtime.GOOS == "linux" && (kib == 0 || kib<<10 > int64(ceiling)) {
		t.Errorf("reading took %d KiB, want at most %v", kib, ceiling)
	}
}

// watchMemory returns the peak of a process's resident memory in KiB, as seen until done.
func watchMemory(pid int, done <-chan struct{}) (peak int64) {
	for {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // gone is no news
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			peak = max(peak, n)
		}
		select {
		case <-done:
			return peak
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// write makes the capture. What is hostile is spread evenly, in rounds of as many as
// there are honest exchanges.
func (a attack) write(w *raw) {
	const rounds = honest
	each := func(round, n int, f func(i int)) {
		for i := n * round / rounds; i < n*(round+1)/rounds; i++ {
			f(i)
		}
	}
	kept := flow{src: 0x0afefefe, sport: 40000, dst: server(80)} // an honest connection that stays
	w.open(&kept)
	long := strings.Repeat("x", 900)
	padding := strings.Repeat("0", 500)
	nested := deepFrame()
	slow := func(i int) *flow {
		return &flow{src: 0x20000000 + uint32(i), sport: uint16(1024 + i%60_000), dst: server(2), next: 1}
	}
	head := func(i int) string {
		return "GET /slow HTTP/1.1\r\nHost: slow.example.org\r\nX-" + strconv.Itoa(i) + ": " + padding
	}
	for r := range rounds {
		each(r, a.halfOpen, func(i int) {
			w.segment(flow{src: 0x10000000 + uint32(i), sport: 999, dst: server(1)}, syn, 0, 0, nil)
		})
		each(r, a.endless, func(i int) {
			f := slow(i)
			w.open(f)
			w.ask(f, head(i))
		})
		// Each goes on, ever more slowly: while it is known, when it is forgotten.
		for k, age := range []int{10, 100, 1000} {
			if r >= age {
				each(r-age, a.endless, func(i int) {
					f := slow(i)
					f.next += uint32(len(head(i)) + k*len(padding))
					w.ask(f, padding)
				})
			}
		}
		each(r, a.names, func(i int) {
			n := strconv.Itoa(i)
			f := flow{src: 0x30000000 + uint32(i), sport: uint16(1024 + i%60_000), dst: server(3), next: 1}
			if i%64 == 0 {
				n += "-" + long
			}
			w.ask(&f, "GET /section-"+n+" HTTP/1.1\r\nHost: host-"+n+".example.org\r\nUser-Agent: agent-"+n+"\r\n\r\n")
		})
		each(r, a.chunks, func(i int) {
			f := flow{src: 0x40000000 + uint32(i), sport: 999, dst: server(4)}
			w.open(&f)
			size := [...]string{"8000000000000000", "7fffffffffffffff", "ffffffffffffffff", "10000000000000000"}[i%4]
			w.ask(&f, "POST / HTTP/1.1\r\nHost: chunk.example.org\r\nTransfer-Encoding: chunked\r\n\r\n"+size+"\r\nx")
			w.ask(&f, padding)
		})
		each(r, a.holes, func(i int) {
			f := flow{src: 0x50000000 + uint32(i), sport: 999, dst: server(5)}
			w.open(&f)
			f.next += 1000
			w.ask(&f, padding)
			f.next += 1
			w.ask(&f, padding)
		})
		each(r, a.deep, func(int) { w.frame(nested) })

		f := &kept
		if r%2 == 0 {
			f = &flow{src: 0x60000000 + uint32(r), sport: 40001, dst: server(80)}
			w.open(f)
		}
		w.ask(f, "GET /honest/page HTTP/1.1\r\nHost: honest.example.org\r\nUser-Agent: ")
		w.ask(f, "honest\r\n\r\n")
		w.answer(f, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if f != &kept {
			w.segment(*f, fin|ack, f.next, f.back, nil)
			w.segment(f.reversed(), fin|ack, f.back, f.next+1, nil)
			w.segment(*f, ack, f.next+1, f.back+1, nil)
		}
	}
}

// A raw writes a capture of many small connections, much faster than testkit.Conversation.
type raw struct {
	w  io.Writer
	at int64
	b  []byte
}

type flow struct {
	src, dst     uint32
	sport, dport uint16 // 0 is 80
	next, back   uint32 // sequence numbers
}

func server(n uint32) uint32 { return 0xc0000200 + n }

func (f flow) reversed() flow {
	port := func(p uint16) uint16 {
		if p == 0 {
			return 80
		}
		return p
	}
	return flow{src: f.dst, dst: f.src, sport: port(f.dport), dport: f.sport}
}

const (
	fin = 1
	syn = 2
	ack = 16
)

func newRaw(w io.Writer) *raw {
	_, _ = w.Write(testkit.Pcap(1)) // an error of the pipe comes again with Flush
	return &raw{w: w, at: testkit.Start.UnixNano()}
}

// frame writes an Ethernet frame.
func (r *raw) frame(data []byte) {
	r.at += int64(time.Microsecond)
	le := binary.LittleEndian
	var record [16]byte
	le.PutUint32(record[0:], uint32(r.at/1e9))
	le.PutUint32(record[4:], uint32(r.at%1e9))
	le.PutUint32(record[8:], uint32(len(data)))
	le.PutUint32(record[12:], uint32(len(data)))
	_, _ = r.w.Write(record[:])
	_, _ = r.w.Write(data)
}

// segment writes one from f.src.
func (r *raw) segment(f flow, flags byte, seq, ackNumber uint32, payload []byte) {
	be := binary.BigEndian
	if cap(r.b) < 54+len(payload) {
		r.b = make([]byte, 4096)
	}
	b := r.b[:54+len(payload)]
	clear(b[:54])
	be.PutUint16(b[12:], 0x0800)
	ipHeader(b[14:], len(payload)+40, 6)
	be.PutUint32(b[26:], f.src)
	be.PutUint32(b[30:], f.dst)
	be.PutUint16(b[34:], f.sport)
	be.PutUint16(b[36:], f.dport)
	if f.dport == 0 {
		be.PutUint16(b[36:], 80)
	}
	be.PutUint32(b[38:], seq)
	be.PutUint32(b[42:], ackNumber)
	b[46], b[47] = 5<<4, flags
	be.PutUint16(b[48:], 0xffff)
	copy(b[54:], payload)
	r.frame(b)
}

func ipHeader(b []byte, length int, protocol byte) {
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(length))
}

func (r *raw) open(f *flow) {
	r.segment(*f, syn, 0, 0, nil)
	r.segment(f.reversed(), syn|ack, 0, 1, nil)
	f.next, f.back = 1, 1
	r.segment(*f, ack, 1, 1, nil)
}

func (r *raw) ask(f *flow, text string) {
	r.segment(*f, ack, f.next, f.back, []byte(text))
	f.next += uint32(len(text))
}

func (r *raw) answer(f *flow, text string) {
	r.segment(f.reversed(), ack, f.back, f.next, []byte(text))
	f.back += uint32(len(text))
}

// deepFrame is IP in IP in IP, 60 times.
func deepFrame() []byte {
	const levels = 60
	b := make([]byte, 14+20*levels)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	for i := range levels {
		ipHeader(b[14+20*i:], 20*(levels-i), 4)
		binary.BigEndian.PutUint32(b[14+20*i+12:], 0x0a000001)
		binary.BigEndian.PutUint32(b[14+20*i+16:], 0x0a000002)
	}
	return b
}
