package http1

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/exchange"
)

func TestMarks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const near = "\n\r:\x00\x01\x09\x0b\x0c\x0e\x39\x3b\x8a\x8d\xba\xff"
	for range 10_000 {
		var b [64]byte
		var want [3]uint64
		for i := range b {
			b[i] = near[random.IntN(len(near))]
			for k, c := range []byte("\n\r:") {
				if b[i] == c {
					want[k] |= 1 << i
				}
			}
		}
		for name, f := range map[string]func(*[64]byte) (lf, cr, colon uint64){"marks": marks, "marksPortable": marksPortable} {
			if lf, cr, colon := f(&b); lf != want[0] || cr != want[1] || colon != want[2] {
				t.Fatalf("%s(%q) = %x, %x, %x, want %x", name, b, lf, cr, colon, want)
			}
		}
	}
}

// TestPlain: what is read of a head in one pass is what is read of it line by line.
func TestPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	names := strings.Fields("Host host HOST hosT Expect User-Agent user-agent Content-Length Content-Lengt Content-Lengths " +
		"Transfer-Encoding TRANSFER-ENCODING Content\x00-Length \x01Transfer-Encoding Transfer-Encodin\x7fg X-Transfer-Encoding Date Etag Connection Cookie " +
		"Accept-Encoding Cache-Control Upgrade-Insecure-Requests a Tost Cost Most User_Agent")
	values := []string{"", "a", "0", "17", "1, 1", "1,2", "chunked", "gzip, chunked", "identity", "example.org", "a:b:c", " \t ", "\x00", strings.Repeat("v", 70), strings.Repeat(":", 130)}
	rare := []string{"\n", "\r\r\n", " \r\n", "\r", ":", "\t:", " folded\r\n", "no colon\r\n", ": none\r\n", "Host : b\r\n", "\n\n", "\r\n\r\n"}
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	var count exchange.Counters
	env := NewEnv(DefaultConfig(), &count)
	read, all := 0, 0
	for range 200_000 {
		in := &strings.Builder{}
		for range random.IntN(12) {
			fmt.Fprintf(in, "%s:%s%s\r\n", pick(names), strings.Repeat(" ", random.IntN(3)), pick(values))
			if random.IntN(40) == 0 {
				in.WriteString(pick(rare))
			}
		}
		in.WriteString("\r\n")
		in.WriteString(pick(append(rare, "", "body: of\r\nit\r\n\r\n", strings.Repeat("b\rb", 40))))
		b := []byte(in.String())
		if random.IntN(4) == 0 {
			b = b[:random.IntN(len(b)+1)]
		}
		h := Message{Kind: Request, Version: 11, Status: random.IntN(2)}
		before, want := h, h
		n := env.plain(&h, b)
		// headEnd begins with the line feed of the start line.
		end, _ := headEnd(append([]byte("\n"), b...), 0)
		all++
		if n == 0 {
			if !reflect.DeepEqual(h, before) {
				t.Fatalf("plain(%q) = 0, and the message is %+v", b, h)
			}
			continue
		}
		read++
		want.headers(b[:n], false)
		if n != end-1 || !reflect.DeepEqual(h, want) {
			t.Fatalf("plain(%q) = %d\n%+v\nwant %d\n%+v", b, n, h, end-1, want)
		}
	}
	if read < all/4 {
		t.Errorf("%d of %d heads were read in one pass", read, all)
	}
	for _, head := range []string{
		"Host: example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nContent-Length: 12\r\nCookie: " + strings.Repeat("c=d; ", 100) + "\r\n\r\n",
		"Server: nginx\r\nDate: Mon, 30 Nov 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n",
		"\r\n",
		strings.Repeat("Host: a\r\n", maxPlain) + strings.Repeat("Accept: a\r\n", maxPlain) + "\r\n",
	} {
		var h Message
		if n := env.plain(&h, []byte(head+"\nbody\r")); n != len(head) {
			t.Errorf("plain(%q) = %d, want %d", head, n, len(head))
		}
	}
}
