package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/httpctl/httpctl/cmd/httpctl/command"
)

const tree = "../.."

// written writes the pages into a directory and returns their texts by name.
func written(t *testing.T) (dir string, texts map[string]string) {
	t.Helper()
	dir = t.TempDir()
	if err := run(tree, dir, "1767323045"); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d pages, %v; want at least 20", len(paths), err)
	}
	texts = map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(text)
	}
	return dir, texts
}

// TestEveryFlagIsInTheManual: each command has a page, or a part of one, with each of its flags.
func TestEveryFlagIsInTheManual(t *testing.T) {
	_, texts := written(t)
	var walk func(name string, c *cobra.Command)
	walk = func(name string, c *cobra.Command) {
		text, ok := texts[name]
		if !ok {
			t.Errorf("%s has no page %s", c.CommandPath(), name)
			return
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			tag := `Fl \-` + strings.ReplaceAll(f.Name, "-", `\-`)
			if there := regexp.MustCompile(`(?m)^\.It .*` + regexp.QuoteMeta(tag) + `( |$)`).MatchString(text); there == (f.Hidden || f.Name == "help") {
				t.Errorf("%s: the flag --%s of %s is there: %v", name, f.Name, c.CommandPath(), there)
			}
		})
		for _, below := range available(c) {
			if below.Name() != "completion" && !strings.Contains(text, "\n.Ss "+below.CommandPath()+"\n") {
				t.Errorf("%s does not tell of %s", name, below.CommandPath())
			}
			walk(name, below)
		}
	}
	for _, c := range available(command.Commands()) {
		walk("httpctl-"+c.Name()+".1", c)
		if want := ".It Xr httpctl-" + c.Name() + " 1\n"; !strings.Contains(texts["httpctl.1"], want) {
			t.Errorf("httpctl.1 does not refer to %s", c.Name())
		}
	}
	for name, flags := range map[string][]string{
		"httpctl-agent.8":      {"config", "check", "dump", "check-capture", "token-file", "again"},
		"httpctl-aggregator.8": {"config", "version", "drop-damaged", "force"},
	} {
		for _, f := range flags {
			if !strings.Contains(texts[name], `Fl \-`+strings.ReplaceAll(f, "-", `\-`)) {
				t.Errorf("%s does not have the flag --%s", name, f)
			}
		}
	}
	if text := texts["httpctl-top.1"]; !strings.Contains(text, ".Dd January 2, 2026\n") || !strings.Contains(text, ".It Fl o , Fl \\-output Ar FORM\n") {
		t.Errorf("httpctl-top.1 has another date, or no -o:\n%s", text)
	}
}

// TestEverySettingIsInTheManual: each key of docs/configuration.md is in the page of its daemon, and no other daemon's.
func TestEverySettingIsInTheManual(t *testing.T) {
	_, texts := written(t)
	reference, err := os.ReadFile(filepath.Join(tree, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `").FindAllStringSubmatch(string(reference), -1)
	if len(keys) < 60 {
		t.Fatalf("%d settings found, want at least 60", len(keys))
	}
	for _, k := range keys {
		section, _, _ := strings.Cut(k[1], ".")
		for _, daemon := range []string{"agent", "aggregator"} {
			want := section == daemon || section != "agent" && section != "aggregator"
			if got := strings.Contains(texts["httpctl-"+daemon+".yaml.5"], "\n.It Sy "+k[1]+"\n"); got != want {
				t.Errorf("httpctl-%s.yaml.5 has %s: %v", daemon, k[1], got)
			}
		}
	}
	if text := texts["httpctl-agent.yaml.5"]; strings.Contains(text, "aggregator.roles.agent") || !strings.Contains(text, `\fBagent.local_networks\fP`) {
		t.Error("httpctl-agent.yaml.5: when changes are in force is told of other settings than the agent's")
	}
}

// TestPagesReadWell has both programs that show manual pages look for mistakes in each.
func TestPagesReadWell(t *testing.T) {
	dir, texts := written(t)
	t.Run("mandoc", func(t *testing.T) {
		if _, err := exec.LookPath("mandoc"); err != nil {
			t.Skip("mandoc is not installed")
		}
		for name := range texts {
			if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", filepath.Join(dir, name)).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("mandoc -T lint %s: %v\n%s", name, err, out)
			}
		}
		out, err := exec.Command("mandoc", "-T", "utf8", filepath.Join(dir, "httpctl-top.1")).Output()
		text := regexp.MustCompile(".\b").ReplaceAllString(string(out), "") // bold and underlined
		for _, want := range []string{"httpctl top [DIMENSION] [flags]", "--watch[=TIME]", "-o, --output FORM", "httpctl top section --since 1h\n"} {
			if err != nil || !strings.Contains(text, want) {
				t.Errorf("httpctl-top(1) does not say %q (%v):\n%s", want, err, text)
			}
		}
	})
	t.Run("man", func(t *testing.T) {
		if _, err := exec.LookPath("man"); err != nil {
			t.Skip("man is not installed")
		}
		for _, name := range []string{"httpctl.1", "httpctl-context.1", "httpctl-agent.8", "httpctl-agent.yaml.5"} { // each takes its time
			cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", filepath.Join(dir, name))
			cmd.Env = append(os.Environ(), "MANWIDTH=100", "MANROFFSEQ=", "LC_ALL=C.UTF-8")
			var out, problems bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &problems
			if err := cmd.Run(); err != nil || problems.Len() > 0 {
				t.Errorf("man -l %s: %v\n%s", name, err, &problems)
			}
			if strings.Contains(name, ".1") && !strings.Contains(out.String(), "EXIT STATUS") {
				t.Errorf("man -l %s shows %d bytes, without EXIT STATUS", name, out.Len())
			}
		}
	})
}

// TestMdoc: what could be read as a macro or an escape is not one.
func TestMdoc(t *testing.T) {
	for in, want := range map[string]string{
		".Sh evil":                        `\&.Sh evil`,
		"'quoted' \\n":                    `\&'quoted' \en`,
		"see `a-b` and [c](d.md#e)":       `see \fBa\-b\fP and c`,
		"takes --since 1h, or -o x-y":     `takes \-\-since 1h, or \-o x-y`,
		"`*.DOMAIN`s are marked *m*, m*n": `\fB*.DOMAIN\fPs are marked \fIm\fP, m*n`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"Ar": `\&Ar`, ".": `\&.`, `a "b`: `"a \(dqb"`, "": `""`, "--x": `\-\-x`} {
		if got := argument(in); got != want {
			t.Errorf("argument(%q) = %s, want %s", in, got, want)
		}
	}
	var p page
	p.usage("httpctl explain DIMENSION [KEY...] --since TIME [flags]")
	if got, want := p.body.String(), ".Nm httpctl\n.Cm explain\n.Ar DIMENSION\n.Op Ar KEY ...\n.Fl \\-since\n.Ar TIME\n.Op Ar flags\n"; got != want {
		t.Errorf("usage =\n%swant\n%s", got, want)
	}
	got := blocks("# A\n\ntext\nmore\n\n    code\n    x\n- one\n  two\n- three\n\n| a | b | c |\n|---|---|\n| 1 | | `2|3` |\n")
	var kinds []string
	for _, b := range got {
		kinds = append(kinds, b.kind)
	}
	if want := []string{"heading", "paragraph", "literal", "items", "table"}; !slices.Equal(kinds, want) || !reflect.DeepEqual(got[3].lines, []string{"one two", "three"}) ||
		!reflect.DeepEqual(got[4].rows, [][]string{{"a", "b", "c"}, {"1", "", "`2|3`"}}) {
		t.Errorf("blocks = %+v", got)
	}
}
