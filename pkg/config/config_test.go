package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// room stands for the Config of a program.
type room struct {
	Interfaces []string          `yaml:"interfaces"`
	Ring       Size              `yaml:"ring"`
	Ratio      float64           `yaml:"ratio"`
	Blocks     uint16            `yaml:"blocks"`
	On         bool              `yaml:"on"`
	Networks   []netip.Prefix    `yaml:"networks"`
	Labels     map[string]string `yaml:"labels"`
	Nested     struct {
		Wait time.Duration `yaml:"wait"`
	} `yaml:"nested"`
	Rules []struct {
		Name string `yaml:"name"`
		Max  int    `yaml:"max"`
	} `yaml:"rules"`
	Maybe *int `yaml:"maybe"`
}

func (r *room) Validate() error {
	var c Check
	c.That(r.Blocks < 100, "blocks", r.Blocks, "less than 100")
	c.In("nested", r.validateNested())
	return c.Err()
}

func (r *room) validateNested() error {
	if r.Nested.Wait < 0 {
		return errors.New("time does not run backwards")
	}
	return nil
}

func mustParse(t *testing.T, text string, env ...string) (*File, *room) {
	t.Helper()
	r := &room{Ring: 8 * MiB}
	f, err := Parse("t.yaml", []byte(text), env, Section{"agent", r})
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return f, r
}

const full = `
# a comment
timeout: 1s
average_learning_duration: 0
statistics: [section, "domain"]
agent:
  interfaces:
    - eth0
    - 10.5
  ring: 64KiB
  ratio: 0.5
  blocks: 0x10
  on: true
  networks: [192.0.2.0/24, "2001:db8::/32"]
  labels: {rack: b, "a b": 3}
  nested: {wait: 1d12h}
  rules:
    - name: a
      max: 1_0
    - {name: b}
  maybe: 4
aggregator:
  listen: whatever this program does not know
log:
  level: debug
`

func TestParse(t *testing.T) {
	f, r := mustParse(t, full, "HTTPCTL_TIMEOUT=3s", "HTTPCTL_AGENT_NETWORKS=10.0.0.0/8, 192.0.2.0/24", "PATH=/bin")
	if f.Settings.Timeout != 3*time.Second || f.Log.Level != "debug" || f.Log.Format != "text" {
		t.Errorf("Timeout, Log = %v, %v; want 3s of the environment, debug, text", f.Settings.Timeout, f.Log)
	}
	if got, want := f.Settings.Learning(), 2*time.Minute; got != want {
		t.Errorf("Learning() = %v, want average_bucket_size %v", got, want)
	}
	want := room{
		Interfaces: []string{"eth0", "10.5"}, Ring: 64 * KiB, Ratio: 0.5, Blocks: 16, On: true,
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")},
		Labels:   map[string]string{"rack": "b", "a b": "3"},
	}
	want.Nested.Wait = 36 * time.Hour
	if r.Maybe == nil || *r.Maybe != 4 || len(r.Rules) != 2 || r.Rules[0].Max != 10 || r.Rules[1].Name != "b" {
		t.Errorf("Maybe, Rules = %v, %v, want 4, two rules", r.Maybe, r.Rules)
	}
	got := *r
	got.Maybe, got.Rules = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("agent = %+v\nwant %+v", got, want)
	}
	for key, want := range map[string]string{
		"timeout": "environment HTTPCTL_TIMEOUT", "agent.interfaces[1]": "t.yaml:9", "agent.nested.wait": "t.yaml:16",
		"max_keys": "", "log.level": "t.yaml:25",
	} {
		if got := f.Where(key); got != want {
			t.Errorf("Where(%q) = %q, want %q", key, got, want)
		}
	}
	if err := f.Set("timeout", "5s", "flag --timeout"); err != nil || f.Settings.Timeout != 5*time.Second || f.Where("timeout") != "flag --timeout" {
		t.Errorf("Set(timeout) = %v, then %v by %q", err, f.Settings.Timeout, f.Where("timeout"))
	}
	if err := f.Set("agent.interface", "x", "flag -i"); err == nil || !strings.Contains(err.Error(), `did you mean "agent.interfaces"`) {
		t.Errorf("Set of an unknown key = %v, want a proposal", err)
	}
}

func TestEmptyFilesAreDefaults(t *testing.T) {
	for _, text := range []string{"", "# only a comment\n", "---\n", "agent:\nlog:\n", "agent:\n  # nothing\nlog: {}\n"} {
		f, r := mustParse(t, text)
		if !reflect.DeepEqual(f.Settings, DefaultSettings()) || r.Ring != 8*MiB || f.Log != DefaultLog() {
			t.Errorf("Parse(%q) = %+v, %+v, want the defaults", text, f.Settings, r)
		}
		if err := f.Validate([]string{"section"}); err != nil {
			t.Errorf("Validate of the defaults = %v", err)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"timeot: 2s\n", `t.yaml:1: timeot: there is no such key; did you mean "timeout"?`},
		{"max-top-hits: 2\n", `t.yaml:1: max-top-hits: there is no such key; did you mean "max_top_hits"?`},
		{"agnet:\n  ring: 1\n", `t.yaml:1: agnet: there is no such key; did you mean "agent"?`},
		{"\nagent:\n  nested:\n    wiat: 1s\n", `t.yaml:4: agent.nested.wiat: there is no such key; did you mean "wait"?`},
		{"agent:\n  rules:\n    - nme: x\n", `t.yaml:3: agent.rules[0].nme: there is no such key; did you mean "name"?`},
		{"agent: {nested: {zzzzzzzz: 1}}\n", `t.yaml:1: agent.nested.zzzzzzzz: there is no such key; there are: wait`},
		{"timeout: 2\nmax_keys: many\n", "t.yaml:1: timeout: \"2\" has no unit: write 2s, 2m or the like\nt.yaml:2: max_keys: \"many\" where a whole number is wanted"},
		{"timeout:\n", `t.yaml:1: timeout: nothing where a duration such as 10s is wanted`},
		{"timeout: [2s]\n", `t.yaml:1: timeout: a list stands where a duration such as 10s is wanted`},
		{"statistics: section\n", `t.yaml:1: statistics: "section" stands where a list is wanted: write [section]`},
		{"statistics: section, [::1]:80\n", `t.yaml:1: statistics: "section, [::1]:80" stands where a list is wanted: write [section, "[::1]:80"]`},
		{"statistics: {a: b}\n", `t.yaml:1: statistics: keys with values stand where a list is wanted: write [a, b]`},
		{"agent:\n\tring: 1\n", `t.yaml:2: a tab at the beginning of the line: YAML is indented with spaces`},
		{"agent: 5\n", `t.yaml:1: agent: "5" stands where keys with values are wanted`},
		{"aggregator: 5\n", `t.yaml:1: aggregator: "5" stands where keys with values are wanted`},
		{"agent: {interfaces: [127.0.0.1:80]}\n", `t.yaml:1: agent.interfaces[0]: keys with values stand where text is wanted; put text with a colon in quotes`},
		{"- a\n", `t.yaml:1: a list stands where keys with values are wanted`},
		{"agent: {ring: 5MB}\n", `t.yaml:1: agent.ring: "5MB": "5MB" is not a size: write bytes or a number with KiB, MiB or GiB, such as 64KiB`},
		{"agent: {blocks: 65536}\n", `t.yaml:1: agent.blocks: "65536" where a whole number from 0 to 65535 is wanted`},
		{"agent: {on: yes}\n", `t.yaml:1: agent.on: "yes" where true or false is wanted`},
		{"agent: {ratio: .inf}\n", `t.yaml:1: agent.ratio: ".inf" where a number is wanted`},
		{"a: &x 1\nb: *x\n", `t.yaml:1: anchors, aliases, merge keys, tags and directives of YAML are not supported: write the value out`},
		{"timeout: 1s\n---\ntimeout: 2s\n", `t.yaml:3: a second document: a configuration is one YAML document`},
		{"timeout: \xff\n", `t.yaml:1: not UTF-8 text`},
		{"timeout: 1s\ntimeout: 2s\n", `t.yaml:2: mapping key "timeout" already defined at [1:1]`},
		{strings.Repeat("[", 100), `t.yaml:1: nested deeper than 64 levels`},
		{strings.Repeat("- ", 100) + "a", `t.yaml:1: nested deeper than 64 levels`},
		{strings.Repeat("#", maxFileBytes+1), `t.yaml: the file is larger than 256KiB`},
	} {
		_, err := Parse("t.yaml", []byte(c.text), nil, Section{"agent", &room{}})
		if err == nil || err.Error() != c.want {
			t.Errorf("Parse(%.60q)\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	f, _ := mustParse(t, "", "HTTPCTL_AGGREGATOR=192.0.2.1:7420", "HTTPCTL_TIMEOT=1s", "HTTPCTL_AGGREGATOR_LISTEN=x",
		"HTTPCTL_AGENT_SERVICE_HOST=10.0.0.1", "HTTPCTL_AGENT_PORT_7420_TCP=tcp://10.0.0.1:7420", "HTTPCTL_AGENT_NESTED_WAIT=3s")
	want := []string{`environment HTTPCTL_TIMEOT is no setting and was ignored; did you mean "HTTPCTL_TIMEOUT"?`}
	if !reflect.DeepEqual(f.Warnings, want) {
		t.Errorf("Warnings = %q, want %q", f.Warnings, want)
	}
	_, err := Parse("", nil, []string{"HTTPCTL_MAX_KEYS=x"})
	if got, want := err.Error(), `environment HTTPCTL_MAX_KEYS: max_keys: "x" where a whole number is wanted`; got != want {
		t.Errorf("Parse = %q, want %q", got, want)
	}
}

func TestValidateReportsAll(t *testing.T) {
	f, _ := mustParse(t, `dashboard_bucket_size: 7s
average_threshold: -1
max_str_length: 1
max_keys: 10
max_top_hits: 11
statistics: [section, secton, section]
agent:
  blocks: 100
  nested: {wait: -1s}
`, "HTTPCTL_TIMEOUT=1ns")
	err := f.Validate([]string{"domain", "section"})
	want := strings.TrimSpace(`
environment HTTPCTL_TIMEOUT: timeout: 1ns is not allowed: want 100ms to 1m
t.yaml:1: dashboard_bucket_size: 7s is not allowed: want whole seconds that divide one minute: 1s, 2s, 3s, 4s, 5s, 6s, 10s, 12s, 15s, 20s, 30s or 1m
t.yaml:2: average_threshold: -1 is not allowed: want 0 to 1000000
t.yaml:3: max_str_length: 1 is not allowed: want 16 to 65536
t.yaml:5: max_top_hits: 11 is not allowed: want at most max_keys, 10
t.yaml:6: statistics[1]: "secton" is not allowed: want one of domain, section; did you mean "section"?
t.yaml:6: statistics[2]: "section" is not allowed: want each statistic once
t.yaml:8: agent.blocks: 100 is not allowed: want less than 100
t.yaml:9: agent.nested: time does not run backwards`)
	if err == nil || err.Error() != want {
		t.Errorf("Validate:\n%v\nwant\n%s", err, want)
	}
}

func TestManyFaultsAreCutShort(t *testing.T) {
	var text strings.Builder
	for i := range 150 {
		fmt.Fprintf(&text, "unknown%d: 1\n", i)
	}
	_, err := Parse("t.yaml", []byte(text.String()), nil)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 101 || lines[100] != "and 50 more" {
		t.Errorf("%d lines, the last %q; want 101, the last \"and 50 more\"", len(lines), lines[len(lines)-1])
	}
}

func TestPlainErrorsBecomeFaults(t *testing.T) {
	var c Check
	c.In("capture", errors.Join(errors.New("rings: 0 is not between 1 and 64"), errors.New("no interface is named"), errors.New("a b: c")))
	c.In("listen", errors.New("aggregator.listen: needs tls"))
	c.In("tls", nil)
	var got []string
	for _, f := range c.Err().(Faults) {
		got = append(got, f.Key+" | "+f.Problem)
	}
	want := []string{"capture.rings | 0 is not between 1 and 64", "capture | no interface is named", "capture | a b: c", "listen | needs tls"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("faults = %q, want %q", got, want)
	}
}

func TestSettingsValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Settings)
		key    string // "" is allowed
	}{
		{func(s *Settings) {}, ""},
		{func(s *Settings) { s.DashboardBucketSize = time.Second }, ""},
		{func(s *Settings) { s.DashboardBucketSize = time.Minute }, ""},
		{func(s *Settings) { s.DashboardBucketSize = 500 * time.Millisecond }, "dashboard_bucket_size"},
		{func(s *Settings) { s.DashboardBucketSize = 0 }, "dashboard_bucket_size"},
		{func(s *Settings) { s.DashboardBucketSize = 2 * time.Minute }, "dashboard_bucket_size"},
		{func(s *Settings) { s.AverageBucketSize = 25 * time.Second }, "average_bucket_size"},
		{func(s *Settings) { s.AverageBucketSize = 0 }, "average_bucket_size"},
		{func(s *Settings) { s.AverageLearningDuration = 15 * time.Second }, "average_learning_duration"},
		{func(s *Settings) { s.AverageLearningDuration = time.Hour }, ""},
		{func(s *Settings) { s.AverageLearningDuration = 48 * time.Hour }, ""},
		{func(s *Settings) { s.AverageLearningDuration = 48*time.Hour + 10*time.Second }, "average_learning_duration"},
		{func(s *Settings) { s.AverageLearningDuration, s.MaxRetentionLength = 7*day, 7*day }, ""},
		{func(s *Settings) { s.AverageThreshold = 0 }, ""},
		{func(s *Settings) { s.MaxTopHits = 0 }, "max_top_hits"},
		{func(s *Settings) { s.MaxRetentionLength = time.Minute }, "max_retention_length"},
		{func(s *Settings) { s.MaxRetentionLength = 24*time.Hour + time.Second }, "max_retention_length"},
		{func(s *Settings) { s.MaxLate = 0 }, ""},
		{func(s *Settings) { s.MaxLate = -time.Second }, "max_late"},
		{func(s *Settings) { s.MaxKeys = 9; s.MaxTopHits = 9 }, "max_keys"},
		{func(s *Settings) { s.HostGoneAfter = 29 * time.Second }, "host_gone_after"},
		{func(s *Settings) { s.HostGoneAfter = 30 * time.Second }, ""},
	} {
		s := DefaultSettings()
		c.change(&s)
		var got []string
		var faults Faults
		if errors.As(s.Validate(nil), &faults) {
			for _, f := range faults {
				got = append(got, f.Key)
			}
		}
		if strings.Join(got, " ") != c.key {
			t.Errorf("Validate(%+v) faults %q, want %q", s, got, c.key)
		}
	}
}

func TestDumpLoadsToTheSame(t *testing.T) {
	f, r := mustParse(t, full)
	r.Interfaces = []string{"a\nb", "# no", "\x01\x7f\u2028é", "", "true", "null", "~", "<<", "- x", "'\""}
	r.Labels = map[string]string{"": "x", "k: v": "y", "\t": "\\"}
	for range 2 {
		var out bytes.Buffer
		if err := f.Dump(&out); err != nil {
			t.Fatal(err)
		}
		f2, r2 := mustParse(t, out.String())
		if !reflect.DeepEqual(f2.Settings, f.Settings) || f2.Log != f.Log || !reflect.DeepEqual(r2, r) {
			t.Fatalf("Dump:\n%s\nloads to %+v %+v\nwant %+v %+v", &out, f2.Settings, r2, f.Settings, r)
		}
		for _, line := range []string{"timeout: 1s # t.yaml:3\n", "max_keys: 1000 # default\n", "\nagent:\n  interfaces: ["} {
			if f.Path == "t.yaml" && f.Where("timeout") == "t.yaml:3" && !strings.Contains(out.String(), line) {
				t.Errorf("Dump lacks %q:\n%s", line, &out)
			}
		}
		f, r = mustParse(t, "") // and the defaults, with everything empty
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load(absent) = %v, want one that is ErrNotExist", err)
	}
	if f, err := Load("", nil); err != nil || f.Path != "" {
		t.Errorf("Load(no file) = %v, %v", f, err)
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Size
		out  string
	}{
		{"0", 0, "0"}, {"1000", 1000, "1000"}, {"64KiB", 64 * KiB, "64KiB"}, {" 1.5 GiB ", 1536 * MiB, "1536MiB"},
		{"2048", 2048, "2KiB"}, {"7B", 7, "7"}, {"-1KiB", -KiB, "-1KiB"}, {"1GiB", GiB, "1GiB"},
	} {
		got, err := ParseSize(c.in)
		if err != nil || got != c.want || got.String() != c.out {
			t.Errorf("ParseSize(%q) = %v (%d), %v, want %s", c.in, got, got, err, c.out)
		}
	}
	for _, in := range []string{"", "KiB", "1KB", "1kib", "9e9", "0x10", "1.2.3", "99999999999GiB", "0.3B", "99999999999999999999.0", "inf", "NaN"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", in, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "24h": day, "2d": 2 * day, "1d12h": 36 * time.Hour, "0": 0, "1.5s": 1500 * time.Millisecond, "-3s": -3 * time.Second,
	} {
		got, err := ParseDuration(in)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", in, got, err, want)
		}
		if back, err := ParseDuration(FormatDuration(got)); err != nil || back != got {
			t.Errorf("ParseDuration(FormatDuration(%v)) = %v, %v", got, back, err)
		}
	}
	for _, in := range []string{"", "5", "d", "1dd", "-1d", "1d-2h", "70000d", "1.5d", "9999999h", "x"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
		}
	}
	if got := FormatDuration(2 * time.Hour); got != "2h" {
		t.Errorf("FormatDuration(2h) = %q", got)
	}
}

func TestDirs(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, map[string]string{"HOME": "/root"}, SystemDataDir},
		{1, map[string]string{"HOME": "/home/a"}, "/home/a/.local/state/httpctl"},
		{1, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "/s"}, "/s/httpctl"},
		{1, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "rel"}, "/home/a/.local/state/httpctl"},
		{1, nil, ""},
	} {
		if got := DataDir(c.uid, env(c.env)); got != c.want {
			t.Errorf("DataDir(%d, %v) = %q, want %q", c.uid, c.env, got, c.want)
		}
	}
	dir := t.TempDir()
	e := map[string]string{"XDG_STATE_HOME": dir}
	if _, err := os.Stat(SocketPath(SystemDataDir)); err != nil {
		if got := FindAggregator("", 1, env(e)); got != DefaultAddress {
			t.Errorf("FindAggregator = %q, want %q", got, DefaultAddress)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "httpctl"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := SocketPath(filepath.Join(dir, "httpctl"))
	listen(t, socket)
	if got := FindAggregator("", 1, env(e)); got != "unix:"+socket {
		t.Errorf("FindAggregator = %q, want the socket %q", got, socket)
	}
	e["HTTPCTL_AGGREGATOR"] = "192.0.2.1:1"
	if got := FindAggregator("", 1, env(e)); got != "192.0.2.1:1" {
		t.Errorf("FindAggregator = %q, want the environment's", got)
	}
	if got := FindAggregator("a:1", 1, env(e)); got != "a:1" {
		t.Errorf("FindAggregator = %q, want the flag's", got)
	}
}

// FuzzParse checks that no file panics or is accepted and not dumped to the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, s := range []string{"a: &a [*a]", "{{{{", "? - ? - x", "a: |\n  b\n", "%YAML 1.2\n---\n", "timeout: !!binary x", "agent: {labels: {\"\\u0000\": 1}}", "- - - -", "'", "\"\\x", "a:\n\tb: 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &room{}
		begin := time.Now()
		file, err := Parse("t.yaml", data, nil, Section{"agent", r})
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("%d bytes took %v", len(data), d)
		}
		if err != nil {
			return
		}
		_ = file.Validate([]string{"section"})
		var out bytes.Buffer
		if err := file.Dump(&out); err != nil {
			t.Fatal(err)
		}
		r2 := &room{}
		again, err := Parse("t.yaml", out.Bytes(), nil, Section{"agent", r2})
		if err != nil {
			t.Fatalf("%q dumps to\n%s\nwhich fails: %v", data, &out, err)
		}
		var second bytes.Buffer
		if err := again.Dump(&second); err != nil {
			t.Fatal(err)
		}
		if a, b := stripComments(out.String()), stripComments(second.String()); a != b {
			t.Fatalf("%q dumps to\n%s\nand then to\n%s", data, a, b)
		}
	})
}

// stripComments drops what follows the last " # " of each line.
func stripComments(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if j := strings.LastIndex(l, " # "); j >= 0 {
			lines[i] = l[:j]
		}
	}
	return strings.Join(lines, "\n")
}

// TestHiddenDataDir: whether there is a socket is not known where the directory may not be searched.
func TestHiddenDataDir(t *testing.T) {
	answers := map[string]error{SocketPath("/mine"): fs.ErrNotExist, SocketPath("/theirs"): &fs.PathError{Op: "stat", Path: "x", Err: syscall.EACCES}}
	stat := func(path string) (fs.FileInfo, error) { return nil, answers[path] }
	for want, dirs := range map[string][]string{"": {"", "/mine", "/open"}, "/theirs": {"/mine", "/theirs"}} {
		if got := hidden(dirs, stat); got != want {
			t.Errorf("hidden(%q) = %q, want %q", dirs, got, want)
		}
	}
}

// sized derives one value from another.
type sized struct {
	Memory Size `yaml:"memory"`
	Table  Size `yaml:"table"`
}

func (s *sized) Derive(given func(string) bool) (string, []string) {
	if given("table") {
		return "memory", nil
	}
	s.Table = s.Memory / 2
	return "memory", []string{"table"}
}

// TestDerived: a value that follows from another does so from every source, unless it is set, and the
// dump says so.
func TestDerived(t *testing.T) {
	for _, c := range []struct {
		file, env, flag, want string
	}{
		{"", "", "", "table: 512KiB # default"},
		{"agent: {memory: 4MiB}", "", "", "table: 2MiB # from agent.memory"},
		{"agent: {memory: 4MiB}", "HTTPCTL_AGENT_MEMORY=8MiB", "", "table: 4MiB # from agent.memory"},
		{"", "", "16MiB", "table: 8MiB # from agent.memory"},
		{"agent: {table: 3MiB}", "", "16MiB", "table: 3MiB # f:1"},
	} {
		s := sized{Memory: MiB}
		f, err := Parse("f", []byte(c.file), []string{c.env}, Section{Name: "agent", Into: &s})
		if err == nil && c.flag != "" {
			err = f.Set("agent.memory", c.flag, "flag")
		}
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := f.Dump(&b); err != nil || !strings.Contains(b.String(), c.want+"\n") {
			t.Errorf("%+v: %v, %s", c, err, b.String())
		}
	}
}
