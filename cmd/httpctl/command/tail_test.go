package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/testkit/golden"
)

// TestTail compares what is written with goldens: exchanges on standard output, how complete they are beside it; in JSON, in the same lines.
func TestTail(t *testing.T) {
	b := newBench(t)
	for name, args := range map[string]string{"tail": "tail", "tail-json": "tail -o json"} {
		stdout, stderr, code := b.run(t, strings.Fields(args)...)
		if code != 0 || strings.Contains(stdout+stderr, "\x1b") {
			t.Errorf("httpctl %s: exit %d, %q", args, code, stderr)
		}
		golden.Check(t, name, stdout+"--- standard error\n"+stderr)
		if name == "tail" {
			continue
		}
		for line := range strings.Lines(stdout) {
			if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	// On a terminal lines have its width, and colours.
	b.world.size = func() (int, int, bool) { return 110, 40, true }
	b.world.location = time.FixedZone("x", 3600)
	b.env["FORCE_COLOR"] = "1"
	stdout, _, _ := b.run(t, "tail", "--utc")
	if !strings.Contains(stdout, "\x1b[32m200\x1b[0m") || !strings.Contains(stdout, "12:00:00.000") {
		t.Errorf("on a terminal:\n%s", stdout)
	}
	if stdout, _, _ = b.run(t, "tail"); !strings.Contains(stdout, "13:00:00.000") {
		t.Errorf("in another time zone:\n%s", stdout)
	}
}

// TestTailQuestion: what the flags say is asked for.
func TestTailQuestion(t *testing.T) {
	b := newBench(t)
	_, stderr, code := b.run(t, strings.Fields("tail --host web-1,web-2 --domain Shop.example.org --section shop.example.org/cart --method GET --status 5XX,- --role server "+
		"--user-agent curl* --user-agent wget --slower-than 500ms --sample 1/10 --rate 20/s -n 100 --for 1h")...)
	q := b.fake.tail
	var filters []string
	for _, f := range q.GetFilter().GetFilters() {
		filters = append(filters, f.Column+"="+strings.Join(f.Values, ","))
	}
	got := fmt.Sprint(q.GetHosts(), filters, q.GetFilter().GetSlowerThanNs(), q.GetSample(), q.GetPerSecond(), q.GetLimit(), time.Duration(q.GetDurationNs()))
	want := "[web-1 web-2] [domain=shop.example.org section=shop.example.org/cart method=GET status=5xx,- role=server user_agent=curl*,wget] 500000000 10 20 100 1h0m0s"
	if code != 0 || got != want {
		t.Errorf("exit %d, %s, asked for\n%s, want\n%s", code, stderr, got, want)
	}
	for args, want := range map[string]string{
		"--sample 10":           "want 1/N",
		"--sample 1/0":          "want 1/N",
		"--sample 1/-3":         "want 1/N",
		"--rate fast":           "want a whole number a second",
		"--rate 0/s":            "want a whole number a second",
		"--slower-than 500":     "want a time such as 500ms",
		"--for -1m":             "want a time",
		"--status 5":            "want a code",
		"-o xml":                "want one of table, wide",
		"--user-agent=":         "an empty value",
		"--statuss 500":         "did you mean --status?",
		"--filter server=1.2.3": "unknown flag: --filter",
	} {
		if _, stderr, code := b.run(t, append([]string{"tail"}, strings.Fields(args)...)...); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("httpctl tail %s: exit %d, %q; want 2 and %q", args, code, stderr, want)
		}
	}
}

// TestTailInterrupted: Ctrl-C ends a tail well, and it says how complete it was.
func TestTailInterrupted(t *testing.T) {
	b := newBench(t)
	b.fake.endless = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, err bytes.Buffer
	w := *b.world
	w.out, w.err = writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("d-0123456789abcdef")) { // the last one that it shows
			cancel()
		}
		return out.Write(p)
	}), &err
	if code := run(ctx, []string{"tail"}, &w); code != 0 || !strings.Contains(err.String(), "1,234 matched, 2 shown, 1,230 dropped") {
		t.Errorf("exit %d, %q; want 0 and a summary", code, err.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
