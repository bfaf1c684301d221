package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestMemoryUnderAttack reads a capture that opens connections and leaves
// them, sends heads without end, names without number, chunks of absurd size and segments that never
// join, with honest exchanges in between: all of those are counted, in bounded memory.
func TestMemoryUnderAttack(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a capture of a third of a million packets")
	}
	path := filepath.Join(t.TempDir(), "attack.pcap")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	at, header := testkit.Start.UnixNano(), true
	put := func(c *testkit.Conversation) {
		for i := range c.Frames {
			at += int64(10 * time.Microsecond)
			c.Frames[i].Time = at
		}
		data := testkit.Pcap(1, c.Frames...)
		if !header {
			data = data[24:] // the file's header
		}
		header = false
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		c.Frames = c.Frames[:0]
	}
	peer := 0
	open := func(server string) *testkit.Conversation {
		peer++
		return testkit.NewConversation(fmt.Sprintf("10.%d.%d.%d:%d", peer>>16&255, peer>>8&255, peer&255, 1024+peer%60_000), server)
	}
	const honest, halfOpen, endless, names = 1000, 100_000, 20_000, 100_000
	var slow []*testkit.Conversation
	exchange := func(n int) {
		c := open("192.0.2.80:80")
		c.Open()
		c.ToServer("GET /honest/page HTTP/1.1\r\nHost: honest.example.org\r\nUser-Agent: honest\r\n\r\n")
		c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.Close()
		put(c)
	}
	for i := range halfOpen {
		c := open("192.0.2.1:80")
		c.FromClient(testkit.SYN, nil)
		put(c)
		if i < endless {
			c := open("192.0.2.2:80")
			c.Open()
			c.ToServer(fmt.Sprintf("GET /slow HTTP/1.1\r\nHost: slow.example.org\r\nX-%d: %0200d", i, i))
			put(c)
			if i < 2000 {
				slow = append(slow, c)
			}
			// A segment beyond a hole that is never filled.
			c.LoseToServer(1)
			c.ToServer(fmt.Sprintf("%01000d", i))
			put(c)
		}
		if i < names {
			c := open("192.0.2.3:80")
			c.ToServer(fmt.Sprintf("GET /section-%d HTTP/1.1\r\nHost: host-%d.example.org\r\nUser-Agent: agent-%d\r\n\r\n", i, i, i))
			put(c)
		}
		if i%1000 == 0 {
			c := open("192.0.2.4:80")
			c.Open()
			c.ToServer("POST / HTTP/1.1\r\nHost: chunk.example.org\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nx")
			put(c)
		}
		if i%100 == 0 {
			exchange(i)
		}
	}
	for range 20 { // heads that grow and never end
		for _, c := range slow {
			c.ToServer(fmt.Sprintf("%0500d", 0))
			put(c)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(program(t, "httpctl"), "read", "-o", "json", "--top", "5", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Packets int64
		Tops    map[string][]struct {
			Key  string
			Hits int64
		}
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatal(err)
	}
	for dimension, key := range map[string]string{"section": "honest.example.org/honest", "domain": "honest.example.org", "user_agent": "honest", "status": "200"} {
		top := answer.Tops[dimension]
		found := false
		for _, row := range top {
			if row.Key == key {
				found = true
				if row.Hits < honest {
					t.Errorf("top %s: %s = %d, want at least %d", dimension, key, row.Hits, honest)
				}
			}
		}
		if !found {
			t.Errorf("top %s has no %s: %v", dimension, key, top)
		}
	}
	if runtime.GOOS == "linux" {
		peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
		t.Logf("%d packets in at most %d MiB", answer.Packets, peak)
		// Measured 292 MiB, of which a heap of 175: max_flows connections with a pairing state of 430
		// bytes each (55 MiB), unanswered requests of 450 (45 MiB), segments (20 MiB). It is a bound
		// of the settings, not of the capture's size.
		if peak > 400 {
			t.Errorf("reading took %d MiB, want at most 400", peak)
		}
	}
}
