package command

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/telemetry"
	"github.com/httpctl/httpctl/pkg/testkit/golden"
	"github.com/httpctl/httpctl/pkg/view"
	pb "github.com/httpctl/httpctl/proto/httpctl/v1"
)

func TestGoldens(t *testing.T) {
	b := newBench(t)
	for name, args := range map[string]string{
		"dashboard-once":       "dashboard --once",
		"dashboard-once-json":  "dashboard --once -o json",
		"dashboard-filtered":   "dashboard --once --host web-1 --status 5XX,404",
		"alerts":               "alerts --since 24h",
		"alerts-json":          "alerts -o json",
		"alerts-csv":           "alerts -o csv",
		"top-dimensions":       "top",
		"top-section":          "top section",
		"top-section-wide":     "top section -o wide",
		"top-section-json":     "top section -o json",
		"top-section-columns":  "top section --columns hits,key --sort-by hits",
		"series":               "series --since 30d --step 1d",
		"series-json":          "series --step day -o json",
		"series-csv":           "series -o csv",
		"series-outcomes":      "series --outcomes",
		"series-outcomes-json": "series --outcomes -o json",
		"series-markdown":      "series -o markdown --columns start,requests,rate",
		"hosts":                "hosts",
		"hosts-json":           "hosts -o json",
		"compare":              "compare section",
		"explain":              "explain section example.org/a",
		"explain-json":         "explain section example.org/a -o json",
		"explain-markdown":     "explain section -o markdown --sort-by=-hits --columns host,hits,loss",
		"compare-json":         "compare section --since 2h --against 7d -o json",
		"baseline":             "baseline",
		"baseline-json":        "baseline show -o json",
		"relearn":              "baseline relearn",
		"help":                 "--help",
		"help-top":             "top --help",
	} {
		stdout, stderr, code := b.run(t, strings.Fields(args)...)
		if code != 0 || stderr != "" {
			t.Errorf("httpctl %s: exit %d, stderr %q", args, code, stderr)
		}
		if strings.Contains(stdout, "\x1b") {
			t.Errorf("httpctl %s writes escapes: %q", args, stdout)
		}
		golden.Check(t, name, stdout)
	}
	if b.fake.relearned != 1 {
		t.Errorf("relearned %d times, want 1", b.fake.relearned)
	}
}

// TestSeriesStep: --step takes what the help says, and the names, and is passed on.
func TestSeriesStep(t *testing.T) {
	b := newBench(t)
	for text, want := range map[string]pb.SeriesStep{
		"": pb.SeriesStep_SERIES_STEP_UNSPECIFIED, "1m": pb.SeriesStep_SERIES_STEP_MINUTE, "10m": pb.SeriesStep_SERIES_STEP_TEN_MINUTES, "1h": pb.SeriesStep_SERIES_STEP_HOUR, "1d": pb.SeriesStep_SERIES_STEP_DAY,
		"1w": pb.SeriesStep_SERIES_STEP_WEEK, "1mo": pb.SeriesStep_SERIES_STEP_MONTH, "Month": pb.SeriesStep_SERIES_STEP_MONTH,
	} {
		args := []string{"series", "--host", "web-1", "--since", "30d"}
		if text != "" {
			args = append(args, "--step", text)
		}
		_, stderr, code := b.run(t, args...)
		q := b.fake.series
		if code != 0 || q.GetStep() != want || q.Range.SinceUnixNs != ns(-30*24*time.Hour) || len(q.Filters) != 1 {
			t.Errorf("--step %q: exit %d, %s, asked %v, want %v of the last 30 days of web-1", text, code, stderr, q, want)
		}
	}
	if _, stderr, code := b.run(t, "series", "--step", "2h"); code != 2 || !strings.Contains(stderr, "1m, 10m, 1h, 1d, 1w, 1mo") {
		t.Errorf("--step 2h: exit %d, %q, want a usage error that says what there is", code, stderr)
	}
}

// TestTopSaysWhatIsCovered: a top list says for which part of the range there is data, if not for all.
func TestTopSaysWhatIsCovered(t *testing.T) {
	since, until := noon.Add(-30*24*time.Hour), noon
	for _, c := range []struct {
		coverage *view.Coverage
		want     string
	}{
		{nil, ""},
		{&view.Coverage{Covered: 30 * 24 * time.Hour, First: since, Last: until}, ""},
		{&view.Coverage{}, "There is no data for any of the 30d0h asked for."},
		{&view.Coverage{Covered: 48 * time.Hour, First: until.Add(-50 * time.Hour), Last: until, GapCount: 1, Gaps: []view.TimeSpan{{Since: until.Add(-4 * time.Hour), Until: until.Add(-2 * time.Hour)}}},
			"There is data for 2d0h of the 30d0h asked for: from 03-02 10:00:00 to 03-04 12:00:00, with 1 gap: 08:00:00 to 10:00:00."},
	} {
		var b strings.Builder
		if err := view.WriteTop(&b, view.FormatTable, view.Style{Now: noon, Width: 200}, &view.Top{Since: since, Until: until, Coverage: c.coverage}); err != nil {
			t.Fatal(err)
		}
		if c.want == "" && strings.Contains(b.String(), "asked for") || !strings.Contains(b.String(), c.want) {
			t.Errorf("a list of 30 days with coverage %+v is\n%s\nwant in it %q", c.coverage, b.String(), c.want)
		}
	}
}

// TestAlertsJSONKeys pins the shape that scripts rely on.
func TestAlertsJSONKeys(t *testing.T) {
	stdout, _, _ := newBench(t).run(t, "alerts", "-o", "json")
	var answer map[string]any
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
		t.Fatal(err)
	}
	keys := func(v any) []string {
		var out []string
		for k := range v.(map[string]any) {
			out = append(out, k)
		}
		slices.Sort(out)
		return out
	}
	if got, want := keys(answer), []string{"alerts", "average_duration_seconds", "max_duration_seconds"}; !slices.Equal(got, want) {
		t.Errorf("keys = %v, want %v", got, want)
	}
	first := answer["alerts"].([]any)[0]
	if got, want := keys(first), []string{"baseline", "duration_seconds", "end", "entries", "scope", "start", "state", "threshold_percent"}; !slices.Equal(got, want) {
		t.Errorf("keys of an alert = %v, want %v", got, want)
	}
	entry := first.(map[string]any)["entries"].([]any)[0]
	if got, want := entry, map[string]any{"time": "2026-03-04T11:57:00.000000005Z", "hits": 111.0}; !reflect.DeepEqual(got, want) {
		t.Errorf("first entry = %v, want %v", got, want)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("timeot: 1s\nmax_keys: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		text string // in stderr
	}{
		{"nonsense", 2, `unknown command "nonsense"`},
		{"topp section --host web-1 -o json", 2, `unknown command "topp"; did you mean "top"?`},
		{"dashbord", 2, `unknown command "dashbord"; did you mean "dashboard"?`},
		{"config chekc", 2, `unknown command "config chekc"; did you mean "config check"?`},
		{"baseline forget", 2, `unknown command "baseline forget"; there are: relearn, show`},
		{"completion elvish", 2, `unknown command "completion elvish"; there are: bash, fish, powershell, zsh`},
		{"completion", 2, "completion needs a shell: bash, fish"},
		{"help nonsense", 2, `unknown command "nonsense"; there are: alerts`},
		{"help config dmp", 2, `unknown command "config dmp"; did you mean "config dump"?`},
		{"help alerts extra", 2, `alerts has no commands of its own: "extra" is too much`},
		{"help alerts", 0, ""},
		{"--version", 0, ""},
		{"alerts --nonsense", 2, "unknown flag: --nonsense\n"},
		{"alerts --sinec 1h", 2, "unknown flag: --sinec; did you mean --since?"},
		{"alerts -x", 2, "unknown shorthand flag: 'x' in -x"},
		{"alerts --since", 2, "flag needs an argument: --since"},
		{"alerts extra", 2, `alerts takes no arguments: "extra" is too much`},
		{"hosts --watch 5s", 2, `"5s": the time of --watch is written with it: --watch=5s`},
		{"top section --watch 5s", 2, `--watch=5s`},
		{"hosts 5s", 2, `hosts takes no arguments: "5s" is too much`},
		{"top section -n many", 2, "--limit many: want a whole number of 0 or more"},
		{"read --top 99999999999999999999 x", 2, "--top 99999999999999999999: want a whole number"},
		{"read", 2, "read needs the name of a capture file, or - for standard input"},
		{"read --local nonsense x", 2, `flag --local: agent.local_networks: network "nonsense"`},
		{"alerts -o xml", 2, "--output xml: want one of table, wide, json, yaml, csv, markdown"},
		{"alerts --since tomorrow", 2, "--since tomorrow: want how long ago, such as 90m, 24h or 2d, or today, yesterday, or a time such as 2026-03-04T12:00\n"},
		{"alerts --since yesterday", 0, ""},
		{"alerts --fail", 4, ""},
		{"alerts --active --fail -q", 4, ""},
		{"alerts --quiet", 2, "--quiet without --fail says nothing at all"},
		{"alerts --fail --watch", 2, "--fail and --watch exclude each other"},
		{"hosts --watch=1ms", 2, `"1ms" for "--watch" flag: want a time of 100ms or more, such as 5s`},
		{"hosts --columns name,colour", 2, `--columns: there is no column "colour"; there are: name, id, health`},
		{"hosts --columns helth", 2, `--columns: there is no column "helth"; did you mean "health"?`},
		{"hosts --sort-by=-request", 2, `--sort-by: there is no column "request"; did you mean "requests"?`},
		{"hosts --sort-by=-colour", 2, `--sort-by: there is no column "colour"; there are: name, id, health`},
		{"hosts --columns name --sort-by=-requests", 0, ""},
		{"compare --against tomorrow", 2, "--against tomorrow: want how much earlier, such as 1h, yesterday, last-week or 7d"},
		{"compare --peers", 2, "--peers: it needs one --host"},
		{"compare --peers --host web-1 --against 1h", 2, "--peers and --against exclude each other"},
		{"compare --peers --host web-9", 2, `no host "web-9"; did you mean "web-1"?`},
		{"explain", 2, "explain needs a dimension, and the key"},
		{"explain sektion", 2, `did you mean "section"?`},
		{"compare sektion", 2, `did you mean "section"?`},
		{"alerts --since 1h --until 2h", 2, "--since 1h: that is not before --until 2h"},
		{"alerts --since 2030-01-01T00:00:00Z", 2, "not in the past"},
		{"top a b", 2, `top takes one dimension at most: "b" is too much`},
		{"top sektion", 2, `there is no dimension "sektion"; did you mean "section"?`},
		{"top zzzzzzzzz", 2, "there are: section, server"},
		{"top section --method GET", 2, "section has no filter method; it has: host, section"},
		{"top section --status 5yx", 2, "--status 5yx: want a code"},
		{"top section --role router", 2, "--role router: want server, client or transit"},
		{"top section --host=", 0, ""},
		{"config", 2, "config needs a command: check or dump"},
		{"config check", 2, "config check needs one configuration file"},
		{"config check " + bad, 1, bad + `:1: timeot: there is no such key; did you mean "timeout"?`},
		{"config check /nonexistent.yaml", 1, "no such file"},
		{"hosts --aggregator 192.0.2.1:7420", 2, "plain text is for loopback"},
		{"hosts --aggregator nonsense", 2, "want host:port or unix:/path"},
		{"hosts --tls-ca x --aggregator 192.0.2.1:7420", 2, "--tls-cert is missing: TLS needs --tls-ca, --tls-cert and --tls-key together"},
		{"alerts --host web-1", 2, "--host: alerts speaks of the whole fleet and has no filters"},
		{"hosts --domain example.org", 2, "--domain: hosts can be filtered by host only"},
		{"version", 0, ""},
	} {
		_, stderr, code := b.run(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.text) {
			t.Errorf("httpctl %s: exit %d, stderr %q; want exit %d and %q", c.args, code, stderr, c.code, c.text)
		}
	}
}

// TestTopBeforeAnyData: the lists that there will be are empty, which is no error; others are unknown all the same.
func TestTopBeforeAnyData(t *testing.T) {
	b := newBench(t)
	b.fake.fresh = true
	for args, want := range map[string]string{
		"":                     "No agent has delivered statistics yet.",
		"section":              "Nothing yet: no agent has delivered statistics.",
		"volume":               "Nothing yet",
		"routes -o json":       `"rows": []`,
		"user_agent -o csv":    "rank,key,hits,error,share,bytes,last_seen\n",
		"status --status 503":  "Nothing yet",
		"method --method POST": "Nothing yet",
	} {
		stdout, stderr, code := b.run(t, append([]string{"top"}, strings.Fields(args)...)...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("httpctl top %s: exit %d, %q, stderr %q; want exit 0 and %q", args, code, stdout, stderr, want)
		}
	}
	if _, stderr, code := b.run(t, "top", "sektion"); code != 2 || !strings.Contains(stderr, `did you mean "section"?`) {
		t.Errorf("httpctl top sektion: exit %d, %q", code, stderr)
	}
}

func TestUnreachable(t *testing.T) {
	b := newBench(t)
	b.world.dial = func(context.Context, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	for _, args := range []string{"hosts", "dashboard", "dashboard --once", "top", "alerts", "baseline", "baseline relearn"} {
		_, stderr, code := b.run(t, strings.Fields(args)...)
		want := "httpctl: cannot reach the aggregator at 127.0.0.1:7420: dial tcp: connect: connection refused (nothing listens there)\nStart one ("
		if code != 3 || !strings.HasPrefix(stderr, want) {
			t.Errorf("httpctl %s: exit %d, stderr\n%s\nwant exit 3 and\n%s", args, code, stderr, want)
		}
	}
}

// TestSlowAnswer: an aggregator that takes long is not called unreachable, and who waits at a terminal is told so.
func TestSlowAnswer(t *testing.T) {
	b := newBench(t)
	b.fake.silent = true
	b.world.patience = 200 * time.Millisecond
	for _, args := range []string{"top section", "top section --watch", "dashboard", "dashboard --once", "report -o md"} {
		terminal := len(args)%2 == 0
		b.world.progress = terminal
		_, stderr, code := b.run(t, strings.Fields(args)...)
		want := "httpctl: the aggregator at 127.0.0.1:7420 is there: no answer within 200ms\nWhat has no roll-ups yet"
		if terminal {
			want = "httpctl: no answer yet, which may take up to 200ms; Ctrl-C ends it\n" + want
		}
		if code != 3 || !strings.HasPrefix(stderr, want) || strings.Contains(stderr, "reach") {
			t.Errorf("httpctl %s: exit %d, stderr\n%s\nwant exit 3 and\n%s", args, code, stderr, want)
		}
	}
}

// TestUnreachableSaysWhatIsHidden: sudo httpctl up runs, and its user asks without sudo.
func TestUnreachableSaysWhatIsHidden(t *testing.T) {
	e := client.UnreachableError{Address: "127.0.0.1:7420", Reason: "connect: connection refused", Hidden: "/var/lib/httpctl"}
	if want := "One may run on /var/lib/httpctl, which this user may not search: try again with sudo"; !strings.Contains(e.Error(), want) {
		t.Errorf("the error is %q, want %q in it", e.Error(), want)
	}
}

func TestQuestions(t *testing.T) {
	b := newBench(t)
	b.run(t, "top", "section", "--since", "2h", "--until", "2026-03-04T11:00:00Z", "--section", "Example.org/A", "--domain", "EXAMPLE.org", "-n", "7")
	q := b.fake.top
	if q.Range.SinceUnixNs != ns(-2*time.Hour) || q.Range.UntilUnixNs != ns(-time.Hour) || q.Limit != 7 || q.Live {
		t.Errorf("top asked %v", q)
	}
	if len(q.Filters) != 2 || q.Filters[0].Column != "domain" || q.Filters[0].Values[0] != "example.org" || q.Filters[1].Values[0] != "Example.org/A" {
		t.Errorf("top filters %v", q.Filters)
	}
	b.run(t, "top", "section")
	if q := b.fake.top; q.Range.SinceUnixNs != 0 || q.Range.UntilUnixNs != 0 || !q.Live || q.Limit != 0 {
		t.Errorf("top asked %v, want an open range, live", q)
	}
	b.run(t, "top", "section", "-n", "0")
	if q := b.fake.top; q.Limit != ask.MaxRows {
		t.Errorf("top -n 0 asked for %d rows, want all, which is %d", q.Limit, ask.MaxRows)
	}
	b.run(t, "alerts", "--since", "1d")
	if got, want := b.fake.alerts.Range.SinceUnixNs, ns(-24*time.Hour); got != want {
		t.Errorf("alerts asked since %d, want %d", got, want)
	}
}

func TestHostsFilter(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]string{"--host web-1": "", "--host 0a": "",
		"--host web-2": `no host "web-2"; did you mean "web-1"?`, "--host store": `no host "store"; there are: web-1`, "--host 0a,x": `no host "x"`} {
		stdout, stderr, code := b.run(t, append([]string{"hosts"}, strings.Fields(args)...)...)
		if known := want == ""; (code == exitDone) != known || (code == exitUsage) == known || strings.Contains(stdout, "web-1") != known || !strings.Contains(stderr, want) {
			t.Errorf("hosts %s: exit %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
}

func TestColorsOfLists(t *testing.T) {
	b := newBench(t)
	b.env["FORCE_COLOR"] = "1"
	stdout, _, _ := b.run(t, "alerts")
	if !strings.Contains(stdout, "\x1b[1;31malert") {
		t.Errorf("FORCE_COLOR: no red alert in %q", stdout)
	}
	b.env["FORCE_COLOR"] = ""
	b.world.size = func() (int, int, bool) { return 40, 10, true }
	stdout, _, _ = b.run(t, "top", "section")
	if !strings.Contains(stdout, "\x1b[1m") {
		t.Errorf("a terminal: no bold heading in %q", stdout)
	}
	b.env["NO_COLOR"] = "1"
	stdout, _, _ = b.run(t, "top", "section")
	if strings.Contains(stdout, "\x1b") {
		t.Errorf("NO_COLOR: escapes in %q", stdout)
	}
}

func TestConfigCommands(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte("timeout: 5s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := b.run(t, "config", "check", path); code != 0 || stdout != path+": no faults\n" {
		t.Errorf("config check: exit %d, %q, %q", code, stdout, stderr)
	}
	b.world.environ = []string{"HTTPCTL_MAX_KEYS=50", "HTTPCTL_TIMEOT=1s"}
	stdout, stderr, code := b.run(t, "config", "dump", path)
	if code != 0 || !strings.Contains(stdout, "timeout: 5s # "+path+":1\n") || !strings.Contains(stdout, "max_keys: 50 # environment HTTPCTL_MAX_KEYS\n") {
		t.Errorf("config dump: exit %d, %q", code, stdout)
	}
	if want := `httpctl: environment HTTPCTL_TIMEOT is no setting and was ignored; did you mean "HTTPCTL_TIMEOUT"?` + "\n"; stderr != want {
		t.Errorf("config dump warns %q, want %q", stderr, want)
	}
	dump := filepath.Join(t.TempDir(), "dump.yaml")
	if err := os.WriteFile(dump, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := b.run(t, "config", "check", dump); code != 0 {
		t.Errorf("config check of a dump: exit %d, %s", code, stderr)
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if stdout, _, code := b.run(t, "completion", shell); code != 0 || !strings.Contains(stdout, "httpctl") {
			t.Errorf("completion %s: exit %d, %d bytes", shell, code, len(stdout))
		}
	}
	if stdout, _, _ := b.run(t, "__complete", "top", ""); !strings.HasPrefix(stdout, "section\nserver\n") {
		t.Errorf("completion of top = %q", stdout)
	}
}

func TestVersionText(t *testing.T) {
	got := versionText(telemetry.Build{Version: "v1.2.3", Revision: "0123456789abcdef", Time: "2026-01-02T03:04:05Z", Go: "go1.26", Platform: "linux/amd64"})
	for _, want := range []string{
		"httpctl v1.2.3\n", "\ncommit    0123456789abcdef of 2026-01-02T03:04:05Z\n", "\ngo        go1.26 linux/amd64\n",
		"\nprotocol  httpctl.v1\n", "\nformats   bucket ", ", spool ", ", store ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("versionText = %q, want %q in it", got, want)
		}
	}
	if n := strings.Count(got, "bucket"); n != 1 {
		t.Errorf("versionText = %q names the bucket %d times", got, n)
	}
}

func TestErrorTextIsClean(t *testing.T) {
	if got, want := errorText(errors.New("a\x1b[2J\n\tb\n")), `a\x1b[2J`+"\n  b"; got != want {
		t.Errorf("errorText = %q, want %q", got, want)
	}
}

// TestAlertsForScripts: the exit code says whether there is an alert, and with --quiet nothing else does.
func TestAlertsForScripts(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]int{"alerts": 0, "alerts --fail": 4, "alerts --active --fail": 4, "alerts --fail -q": 4} {
		stdout, stderr, code := b.run(t, strings.Fields(args)...)
		if code != want || stderr != "" || (stdout == "") != strings.HasSuffix(args, "-q") {
			t.Errorf("httpctl %s: exit %d, %q, stderr %q; want exit %d", args, code, stdout, stderr, want)
		}
	}
	stdout, _, _ := b.run(t, "alerts", "--active", "-o", "csv")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "alert,") {
		t.Errorf("alerts --active lists %q", lines)
	}
	b.fake.calm = true
	for _, args := range []string{"alerts --active --fail", "alerts --active --fail --quiet"} {
		stdout, _, code := b.run(t, strings.Fields(args)...)
		if said := strings.Contains(stdout, "No alert is active."); code != 0 || said == strings.HasSuffix(args, "--quiet") {
			t.Errorf("httpctl %s: exit %d, %q; want exit 0", args, code, stdout)
		}
	}
}

// TestComparePeers: one host is held against the others that are there.
func TestComparePeers(t *testing.T) {
	b := newBench(t)
	b.fake.peer = true
	stdout, stderr, code := b.run(t, "compare", "section", "--host", "WEB-1", "--peers")
	if code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	golden.Check(t, "compare-peers", stdout)
	if q := b.fake.top; len(q.Filters) != 1 || !slices.Equal(q.Filters[0].Values, []string{"0b"}) || q.Limit != 2000 || q.Range.UntilUnixNs != ns(-10*time.Second) {
		t.Errorf("the last question was %v", q)
	}
}

// TestSeriesOfAYoungAggregator: without --since a day that is nearly empty is left out, and with it nothing is.
func TestSeriesOfAYoungAggregator(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		young bool
		args  []string
		since int64
	}{{false, []string{"series"}, 0}, {true, []string{"series"}, ns(-3 * time.Minute)}, {true, []string{"series", "--since", "24h"}, ns(-24 * time.Hour)}} {
		b.fake.young = c.young
		if _, stderr, code := b.run(t, c.args...); code != 0 {
			t.Fatalf("%v: exit %d, %s", c.args, code, stderr)
		}
		if got := b.fake.series.GetRange().GetSinceUnixNs(); got != c.since {
			t.Errorf("young %v, %v: the last question begins at %d, want %d", c.young, c.args, got, c.since)
		}
	}
}
