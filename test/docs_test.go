package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	agent "github.com/httpctl/httpctl/agent/app"
	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/stat"
)

// page reads a documentation page, named from the top of the tree.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are all of them.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"../README.md", "../docs/*.md", "../demo/README.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name := strings.TrimPrefix(path, "../")
			found[name] = page(t, name)
		}
	}
	if len(found) < 9 {
		t.Fatalf("%d pages found, want at least 9", len(found))
	}
	return found
}

// differ reports what is in one of two lists only.
func differ(t *testing.T, where string, got, want []string) {
	t.Helper()
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s has %s, which does not exist so", where, g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s does not have %s", where, w)
		}
	}
}

// TestDocsSettings compares the keys of agent, aggregator and log, and their
// defaults, with docs/configuration.md.
func TestDocsSettings(t *testing.T) {
	a, g := agent.DefaultConfig(), aggregator.DefaultConfig()
	a.State, a.HostName, g.Data = "/var/lib/httpctl/agent", "web1", "/var/lib/httpctl" // those of root on web1
	f, err := config.Load("", nil, config.Section{Name: "agent", Into: &a}, config.Section{Name: "aggregator", Into: &g})
	if err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	if err := f.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	var want, path []string
	for line := range strings.Lines(dump.String()) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		path = append(path[:indent/2], key)
		value, _, ok = strings.Cut(value, " # default")
		value = strings.TrimSpace(value)
		if len(path) == 1 || !ok {
			continue // those at the top are compared in cmd/httpctl/command
		}
		if value != `""` {
			value = strings.ReplaceAll(value, `"`, "")
		}
		want = append(want, strings.Join(path, ".")+" = "+value)
	}
	if len(want) < 40 {
		t.Fatalf("%d settings found, want at least 40:\n%s", len(want), dump.String())
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+\\.[a-z_.]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(page(t, "docs/configuration.md"), -1) {
		value := strings.Trim(m[2], "`")
		if value == "the host's" {
			value = "web1"
		}
		got = append(got, m[1]+" = "+value)
	}
	differ(t, "docs/configuration.md", got, want)
}

// TestDocsSamples checks each file of configs/ as it is, and with what it has
// commented out.
func TestDocsSamples(t *testing.T) {
	paths, err := filepath.Glob("../configs/*.yaml")
	if err != nil || len(paths) < 3 {
		t.Fatalf("samples: %v, %v; want at least three", paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(whole, regexp.MustCompile(`(?m)^( *)# ( *[a-z_]+:( |$))`).ReplaceAll(text, []byte("$1$2")), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, whole} {
			a, g := agent.DefaultConfig(), aggregator.DefaultConfig()
			f, err := config.Load(path, nil, config.Section{Name: "agent", Into: &a}, config.Section{Name: "aggregator", Into: &g})
			if err == nil {
				err = f.Validate(stat.Names())
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}

// TestDocsCounters compares the counters, in order, with docs/formats.md.
func TestDocsCounters(t *testing.T) {
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| ([0-9]+) \\| `([a-z0-9_]+)` \\| [a-z]+ \\| .").FindAllStringSubmatch(page(t, "docs/formats.md"), -1) {
		got = append(got, m[1]+" "+m[2])
	}
	for c := range exchange.NumCounters {
		want = append(want, fmt.Sprintf("%d %s", c, c))
	}
	if !slices.Equal(got, want) {
		differ(t, "docs/formats.md", got, want)
		t.Errorf("docs/formats.md has the counters %q, want %q", got, want)
	}
}

// TestDocsCommandLines checks every httpctl command and flag that a page names
// against the programs, every target of make against the Makefile, and every
// flag of the programs against docs/cli.md.
func TestDocsCommandLines(t *testing.T) {
	dir := filepath.Dir(program(t, "httpctl"))
	help := func(args ...string) string {
		out, _ := exec.Command(filepath.Join(dir, args[0]), append(args[1:], "--help")...).CombinedOutput()
		return string(out)
	}
	flags := map[string]bool{"--replay": true}
	commands := map[string]bool{}
	var walk func(path ...string)
	walk = func(path ...string) {
		text := help(path...)
		for _, m := range regexp.MustCompile(`(?m)^ +(?:(-[a-z]), |   )?(--[a-z-]+)`).FindAllStringSubmatch(text, -1) {
			flags[m[1]], flags[m[2]] = true, true
		}
		_, list, _ := strings.Cut(text, "\nCommands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+)`).FindAllStringSubmatch(list, -1) {
			commands[strings.Join(append(path[1:len(path):len(path)], m[1]), " ")] = true
			if m[1] != "completion" {
				walk(append(path[:len(path):len(path)], m[1])...)
			}
		}
	}
	walk("httpctl")
	for _, daemon := range []string{"httpctl-agent", "httpctl-aggregator"} {
		for _, m := range regexp.MustCompile(`(?m)^  --?([a-z][a-z-]*)`).FindAllStringSubmatch(help(daemon), -1) {
			flags["--"+m[1]] = true
		}
	}
	for _, text := range []string{help("httpctl-aggregator", "store"), help("httpctl-agent", "enroll")} {
		for _, m := range regexp.MustCompile(`(?m)^  (--[a-z-]+)`).FindAllStringSubmatch(text, -1) {
			flags[m[1]] = true
		}
	}
	if len(commands) < 12 || len(flags) < 20 {
		t.Fatalf("%d commands, %d flags found: help reads otherwise than this test thinks", len(commands), len(flags))
	}

	cli := page(t, "docs/cli.md")
	for f := range flags {
		if strings.HasPrefix(f, "--") && f != "--help" && !strings.Contains(cli, "`"+f) && !strings.Contains(cli, f+"`") {
			t.Errorf("docs/cli.md does not name the flag %s", f)
		}
	}
	makefile := page(t, "Makefile")
	for name, text := range pages(t) {
		// Only code, and no line that is another program's.
		for _, code := range codeOf(text) {
			for line := range strings.Lines(strings.ReplaceAll(code, "\\\n", " ")) {
				line = strings.TrimSpace(line)
				if m := regexp.MustCompile(`(?:^|\| )(?:sudo )?make ([a-z-]+)`).FindStringSubmatch(line); m != nil && !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s: make has no target %s", name, m[1])
				}
				m := regexp.MustCompile(`(?:^|\| |sudo |\$ |=\S+ )httpctl(-agent|-aggregator)?((?: \S.*)?)$`).FindStringSubmatch(line)
				if m == nil {
					continue
				}
				words := strings.Fields(strings.Split(strings.Split(m[2], " | ")[0], " #")[0])
				if m[1] == "" && len(words) > 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(words[0]) && !commands[words[0]] {
					t.Errorf("%s: %q: httpctl has no command %s", name, line, words[0])
				}
				for _, w := range words {
					f, _, _ := strings.Cut(w, "=")
					if regexp.MustCompile(`^--?[a-z]`).MatchString(f) && !flags[f] {
						t.Errorf("%s: %q: there is no flag %s", name, line, f)
					}
				}
			}
		}
		// A flag alone, in backquotes, is one of ours.
		for _, m := range regexp.MustCompile("`(--[a-z-]+)[^`]*`").FindAllStringSubmatch(text, -1) {
			if !flags[m[1]] {
				t.Errorf("%s: there is no flag %s", name, m[1])
			}
		}
	}
}

// codeOf returns the code of a page: fenced, indented, and between backquotes.
func codeOf(text string) (code []string) {
	for _, m := range regexp.MustCompile("(?ms)^```\\w*[^\n]*\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		code = append(code, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^    (.*)$").FindAllStringSubmatch(text, -1) {
		code = append(code, m[1])
	}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		code = append(code, m[1])
	}
	return code
}

// TestDocsSecurity: each test that docs/security.md calls a witness exists.
func TestDocsSecurity(t *testing.T) {
	tests := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(t \*testing\.T\)`).FindAllSubmatch(source, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(page(t, "docs/security.md"), -1)
	if len(named) < 40 {
		t.Errorf("docs/security.md names %d tests, want at least 40", len(named))
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("docs/security.md names the test %s, which does not exist", m[1])
		}
	}
}

// TestDocsLinks follows every link inside the tree, to its heading.
func TestDocsLinks(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^):]*)\)`).FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			info, err := os.Stat(filepath.Join("..", target))
			if err != nil {
				t.Errorf("%s: %s is not there", name, m[1])
				continue
			}
			if anchor == "" || info.IsDir() {
				continue
			}
			var headings []string
			for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page(t, target), -1) {
				id := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(h[1]), "")
				headings = append(headings, strings.ReplaceAll(id, " ", "-"))
			}
			if !slices.Contains(headings, anchor) {
				t.Errorf("%s: %s has no heading %s", name, target, anchor)
			}
		}
	}
}
