package command

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/testkit/golden"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestReport(t *testing.T) {
	b := newBench(t)
	stdout, stderr, code := b.run(t, "report", "-o", "md", "--since", "2h", "--host", "web-1,web-2", "--filter", "user_agent=it's <b>", "--filter", "tld=org")
	if code != 0 || stderr != "" {
		t.Fatalf("report -o md: exit %d, %q", code, stderr)
	}
	golden.Check(t, "report-md", stdout)
	b.fake.mu.Lock()
	dashboard, series, top := b.fake.dashboard, b.fake.series, b.fake.top
	b.fake.mu.Unlock()
	if got, want := dashboard.Range.SinceUnixNs, ns(-2*time.Hour); got != want || dashboard.Live || dashboard.Limit != 10 || len(dashboard.Filters) != 3 {
		t.Errorf("the dashboard was asked for %v", dashboard)
	}
	if f := series.Filters; len(f) != 4 || f[3].Column != "status" || f[3].Values[0] != "5xx" || series.Step != pb.SeriesStep_SERIES_STEP_DAY {
		t.Errorf("errors were asked for with %v", series)
	}
	if top.Dimension != "routes" || len(top.Filters) != 4 {
		t.Errorf("failing routes were asked for with %v", top)
	}

	b.run(t, "report", "-o", "md", "-n", "0")
	if got := b.fake.dashboard.Limit; got != ask.MaxRows {
		t.Errorf("report -n 0 asked for %d rows, want all, which is %d", got, ask.MaxRows)
	}

	file := filepath.Join(t.TempDir(), "report.html")
	stdout, stderr, code = b.run(t, "report", "--file", file)
	if code != 0 || stdout != "" || !strings.HasPrefix(stderr, file+": ") {
		t.Errorf("report --file: exit %d, %q, %q", code, stdout, stderr)
	}
	if got, want := b.fake.dashboard.Range.SinceUnixNs, ns(-24*time.Hour); got != want {
		t.Errorf("without --since it begins at %d, want %d", got, want)
	}
	page, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(page), "<!DOCTYPE html>") || !strings.Contains(string(page), "<svg") {
		t.Errorf("%s: %v, %.200s", file, err, page)
	}
	if _, err := html.Parse(strings.NewReader(string(page))); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%s: %v, %v", file, info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("it left %v", left)
	}
	if stdout, _, code := b.run(t, "report", "--status", "5xx", "--file", "-"); code != 0 || !strings.HasPrefix(stdout, "<!DOCTYPE html>") {
		t.Errorf("report --file -: exit %d, %.100q", code, stdout)
	}

	for args, want := range map[string]string{
		"report -o pdf":                    "--output pdf: want one of html, md",
		"report --file /nonexistent/a":     "--file /nonexistent/a: no such file or directory; its directory has to be there",
		"report --since tomorrow":          "--since tomorrow",
		"report extra":                     "takes no arguments",
		"report --filter method=GET -o md": "has no filter method",
	} {
		stdout, stderr, code := b.run(t, strings.Fields(args)...)
		if refused := strings.Contains(args, "method"); refused { // a part that is refused is left out
			if code != 0 || strings.Contains(stdout, "ended with 5xx") {
				t.Errorf("%s: exit %d, %q\n%s", args, code, stderr, stdout)
			}
			continue
		}
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want %q", args, code, stderr, want)
		}
	}
	b.world.size = func() (int, int, bool) { return 80, 24, true }
	if _, stderr, code := b.run(t, "report"); code != exitUsage || !strings.Contains(stderr, "--file") {
		t.Errorf("a page on a terminal: exit %d, %q", code, stderr)
	}
}

// TestReportFile: what is no file is written to and stays what it is, and a file keeps its mode.
func TestReportFile(t *testing.T) {
	dir := t.TempDir()
	file, link, away, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "away"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte("before, and longer than what comes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{link: "file", away: "none"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		before, _ := os.Lstat(path)
		if err := replaceFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Lstat(path); err != nil || before.Mode() != after.Mode() {
			t.Errorf("%s was %v and is %v, %v", path, before.Mode(), after.Mode(), err)
		}
	}
	holds := func(path, want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
		}
	}
	write(file, "whole")
	holds(file, "whole")
	write(link, "linked")
	holds(file, "linked")
	write(away, "made")
	holds(filepath.Join(dir, "none"), "made")
	end, err := os.OpenFile(pipe, os.O_RDWR, 0) // does not wait for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	write(pipe, "piped")
	got := make([]byte, 5)
	if err := end.SetReadDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := end.Read(got); err != nil || string(got[:n]) != "piped" {
		t.Errorf("from the pipe came %q, %v", got[:n], err)
	}
	if err := replaceFile(dir, nil); err == nil {
		t.Error("a directory is written to")
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{"24h": "24h", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a=b,c": "a=b,c"} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
}
