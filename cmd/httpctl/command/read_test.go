package command

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit"
	"github.com/httpctl/httpctl/pkg/testkit/golden"
)

// shopCapture is a small capture with one of each: a page, a mistake, an
// upload in chunks, an interim response, a request without an answer, and a
// user agent that would colour a terminal.
func shopCapture(t *testing.T) (path string) {
	t.Helper()
	a := testkit.NewConversation("192.0.2.1:40000", "192.0.2.80:80")
	a.Open()
	a.ToServer("GET /cart/items?id=1 HTTP/1.1\r\nHost: Shop.Example.org:80\r\nUser-Agent: curl/8.14.1\r\n\r\n")
	a.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	a.ToServer("GET /gone HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: \x1b[31mred\r\n\r\n")
	a.ToClient("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnone\r\n0\r\n\r\n")
	a.Close()
	b := testkit.NewConversation("192.0.2.2:40000", "192.0.2.80:8080")
	b.Now = a.Now
	b.Open()
	b.ToServer("POST /v1/orders HTTP/1.1\r\nHost: api.example.org\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	b.ToClient("HTTP/1.1 100 Continue\r\n\r\n")
	b.ToServer("3\r\nabc\r\n0\r\n\r\n")
	b.ToClient("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
	b.ToServer("DELETE /v1/orders/1 HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
	b.Close()
	return testkit.WriteFile(t, testkit.Merge(a, b)...)
}

func TestReadGoldens(t *testing.T) {
	path := shopCapture(t)
	for name, args := range map[string][]string{
		"read":           {"read", path},
		"read-wide":      {"read", "-o", "wide", path},
		"read-json":      {"read", "-o", "json", path},
		"read-csv":       {"read", "-o", "csv", "--top", "1", path},
		"read-exchanges": {"read", "--exchanges", "--local", "192.0.2.80", path},
		"read-ports":     {"read", "--ports", "8080", "-o", "json", path},
	} {
		out, stderr, code := newBench(t).run(t, args...)
		if code != exitDone || stderr != "" {
			t.Errorf("httpctl %v = %d, %q", args, code, stderr)
		}
		if strings.ContainsRune(out, '\x1b') {
			t.Errorf("httpctl %v prints an escape code", args)
		}
		golden.Check(t, name, out)
	}
}

// TestReadForms wants the same values in every form, and one answer whatever
// way the packets come.
func TestReadForms(t *testing.T) {
	path := shopCapture(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	gz := filepath.Join(t.TempDir(), "shop.pcap.gz")
	if err := os.WriteFile(gz, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	want, _, _ := newBench(t).run(t, "read", "-o", "json", path)
	if got, _, code := newBench(t).run(t, "read", "-o", "json", gz); got != want || code != exitDone {
		t.Errorf("the packed file reads as %s, %d, want %s", got, code, want)
	}
	var twice, once struct{ Requests, Packets int }
	out, _, _ := newBench(t).run(t, "read", "-o", "json", path, gz)
	if err := json.Unmarshal([]byte(out), &twice); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &once); err != nil {
		t.Fatal(err)
	}
	if twice.Packets != 2*once.Packets {
		t.Errorf("two files have %d packets, want %d", twice.Packets, 2*once.Packets)
	}

	// CSV has every value that JSON has.
	var report map[string]any
	if err := json.Unmarshal([]byte(want), &report); err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{} // list, column -> values, in order
	text, _, _ := newBench(t).run(t, "read", "-o", "csv", path)
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines[1:] {
		name := l[0] + "." + l[3]
		if l[1] == "other" {
			name = "rest." + l[0] + ".other." + l[3]
		}
		values[name] = append(values[name], l[4])
	}
	check := func(name string, v any) {
		t.Helper()
		got := ""
		if len(values[name]) > 0 {
			got, values[name] = values[name][0], values[name][1:]
		}
		if want := fmt.Sprint(v); got != want && v != nil {
			if n, err := strconv.ParseFloat(got, 64); err != nil || n != v {
				t.Errorf("CSV has %q as the next of %s, JSON %v", got, name, v)
			}
		}
	}
	checked := 0
	for key, v := range report {
		switch v := v.(type) {
		case map[string]any:
			if key == "tops" || key == "rest" {
				continue
			}
			for inner, v := range v {
				check("report."+key+"."+inner, v)
				checked++
			}
		case float64, string:
			check("report."+key, v)
			checked++
		}
	}
	for list, rows := range report["tops"].(map[string]any) {
		for _, row := range rows.([]any) {
			for column, v := range row.(map[string]any) {
				if _, ok := values[list+"."+column]; ok { // the keys have a column of their own
					check(list+"."+column, v)
					checked++
				}
			}
		}
		rest := report["rest"].(map[string]any)[list].(map[string]any)
		check(list+".floor", rest["floor"])
		if other, ok := rest["other"].(map[string]any); ok {
			check("rest."+list+".other.hits", other["hits"])
		}
	}
	if checked < 100 {
		t.Errorf("%d values were compared: the test looks in the wrong place", checked)
	}
}

func TestReadDamaged(t *testing.T) {
	path := shopCapture(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(cut, data[:len(data)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	out, stderr, code := newBench(t).run(t, "read", "-o", "json", cut)
	var report struct {
		Requests int
		Warnings []string
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if code != exitDone || report.Requests != 4 || len(report.Warnings) != 1 || !strings.Contains(stderr, cut) {
		t.Errorf("a cut capture = %d, %+v, %q, want 0, 4 requests and a warning that names it", code, report, stderr)
	}

	text := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(text, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[int][][]string{
		exitFailed: {{text}, {filepath.Join(t.TempDir(), "none.pcap")}, {t.TempDir()}},
		exitUsage:  {{}, {"--top", "-1", path}, {"--local", "here", path}, {"--ports", "http", path}, {"-o", "xml", path}},
	} {
		for _, a := range args {
			out, stderr, code := newBench(t).run(t, append([]string{"read"}, a...)...)
			if code != want || stderr == "" || out != "" {
				t.Errorf("httpctl read %v = %d, %q, %q, want %d and an error", a, code, out, stderr, want)
			}
		}
	}
}

// TestReadExchangesInAllForms: each form has the exchanges one after another, in the same order; that of each is tested with the view.
func TestReadExchangesInAllForms(t *testing.T) {
	path := shopCapture(t)
	const n = 4 // exchanges
	for form, lines := range map[string]int{"": n, "json": n, "csv": n + 1, "markdown": n + 2, "table": n, "wide": n} {
		args := []string{"read", "--exchanges", path}
		if form != "" {
			args = append(args, "-o", form)
		}
		out, stderr, code := newBench(t).run(t, args...)
		got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if code != exitDone || stderr != "" || len(got) != lines {
			t.Fatalf("httpctl %v: exit %d, %q, %d lines, want %d:\n%s", args, code, stderr, len(got), lines, out)
		}
		if !strings.Contains(got[lines-1], "DELETE") || !strings.Contains(got[lines-n], "GET") || strings.HasPrefix(got[0], "{") != (form == "" || form == "json") {
			t.Errorf("httpctl %v:\n%s", args, out)
		}
	}
}

// TestReadIsTheSameOnAnyDay: README and scripts hold what a capture prints.
func TestReadIsTheSameOnAnyDay(t *testing.T) {
	path := shopCapture(t)
	want, _, _ := newBench(t).run(t, "read", path)
	for _, later := range []time.Duration{-63 * 24 * time.Hour, 24 * time.Hour, 400 * 24 * time.Hour} {
		b := newBench(t)
		b.world.now = func() time.Time { return noon.Add(later) }
		if got, _, _ := b.run(t, "read", path); got != want {
			t.Errorf("%s later the capture reads as\n%s\nwant\n%s", later, got, want)
		}
	}
}

// TestReadSuspects: who reads a capture sees which requests two servers could
// frame differently, and why.
func TestReadSuspects(t *testing.T) {
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.80:80")
	c.Open()
	c.ToServer("POST /a HTTP/1.1\r\nHost: example.org\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.ToServer("POST /b HTTP/1.1\r\nHost: example.org\r\nContent-Length: 6\r\nTransfer-Encoding : chunked\r\n\r\n1\na\r\n0\r\n\r\n")
	c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.ToServer("GET /c HTTP/1.1\r\nHost: example.org\r\n\r\n")
	c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.Close()
	path := testkit.WriteFile(t, c.Frames...)
	out, _, _ := newBench(t).run(t, "read", path)
	if want := "could frame differently: 2 (2 length and coding, 1 space before colon, 1 chunk framing)\n"; !strings.Contains(out, want) {
		t.Errorf("read prints\n%s\nwithout %q", out, want)
	}
	out, _, _ = newBench(t).run(t, "read", "--exchanges", path)
	var got []string
	for line := range strings.Lines(out) {
		var x struct {
			Target  string
			Suspect []string
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(x.Target, " ", strings.Join(x.Suspect, ", ")))
	}
	want := []string{"/a content-length with transfer-encoding", "/b content-length with transfer-encoding, space before colon, chunk framing", "/c "}
	if !slices.Equal(got, want) {
		t.Errorf("read --exchanges shows %q, want %q", got, want)
	}
}
