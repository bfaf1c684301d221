package command

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/view"
)

const repo = "../../.."

// TestSamples checks that each sample configuration has no fault.
func TestSamples(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(repo, "configs", "*.yaml"))
	if err != nil || len(paths) < 3 {
		t.Fatalf("samples: %v, %v; want at least agent, aggregator and up", paths, err)
	}
	b := newBench(t)
	for _, path := range paths {
		if stdout, stderr, code := b.run(t, "config", "check", path); code != 0 {
			t.Errorf("config check %s: exit %d, %s%s", path, code, stdout, stderr)
		}
	}
}

// TestConfigurationPageListsSettings checks the table of settings against the struct.
func TestConfigurationPageListsSettings(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repo, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| `([^`]*)` \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1]+": "+m[2])
	}
	f, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	if err := f.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, line := range strings.Split(dump.String(), "\n") {
		if key, _, ok := strings.Cut(line, " # default"); ok && !strings.HasPrefix(line, " ") {
			keys = append(keys, strings.Replace(key, ": 0s", ": 0", 1))
		}
	}
	if !reflect.DeepEqual(documented, keys) {
		t.Errorf("docs/configuration.md has\n%q\nwant\n%q", documented, keys)
	}
}

// TestCommandPageListsCommands checks docs/cli.md against the commands.
func TestCommandPageListsCommands(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repo, "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Commands().Commands() {
		if !strings.Contains(string(page), "`"+c.Name()) {
			t.Errorf("docs/cli.md does not name the command %s", c.Name())
		}
	}
}

// TestEveryCommandIsDocumented: docs/json.md has a part for each command that has forms of output, and for no other. Tests of pkg/view hold each part
// against what is written, and prove that all forms of it carry the same values, so that a command cannot be added without them.
func TestEveryCommandIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repo, "docs", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^## `([^`]+)`$").FindAllStringSubmatch(string(page), -1) {
		there[m[1]] = true
	}
	own := []string{"httpctl bench fleet", "httpctl report"} // a report of its own, documented in docs/scaling.md; a file of HTML or Markdown
	var commands []string
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		for _, inner := range c.Commands() {
			look(inner)
		}
		name := c.CommandPath()
		complete, ok := c.GetFlagCompletionFunc("output")
		if c.Flags().Lookup("output") == nil || !ok || slices.Contains(own, name) {
			return // -o is the name of a file
		}
		if forms, _ := complete(c, nil, ""); !slices.Equal(forms, view.Formats) {
			t.Errorf("%s -o has the forms %q, want %q", name, forms, view.Formats)
		}
		if same, ok := map[string]string{"httpctl baseline show": "httpctl baseline", "httpctl context list": "httpctl context", "httpctl up": "httpctl dashboard"}[name]; ok {
			name = same
		}
		if !there[name] {
			t.Errorf("docs/json.md has no part %s", name)
		}
		commands = append(commands, name)
	}
	look(Commands())
	if len(commands) < 14 {
		t.Errorf("%q have forms of output, want at least 14 commands", commands)
	}
	for part := range there {
		if !slices.ContainsFunc(commands, func(name string) bool {
			return part == name || part == name+" DIMENSION" || part == name+" --exchanges"
		}) {
			t.Errorf("docs/json.md has a part %s, and there is no such command", part)
		}
	}
}

// TestExamplesOfExplainAreAnswered: each example gives a value for each key of its list, or none.
func TestExamplesOfExplainAreAnswered(t *testing.T) {
	keys := map[string]int{}
	for _, name := range stat.Builtin {
		module, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, schema := range module.Tables() {
			for _, v := range schema.Views {
				keys[v.Name] = len(v.By)
			}
		}
	}
	examples := 0
	for _, line := range strings.Split(newExplainCommand(newBench(t).world).Example, "\n") {
		words, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "httpctl explain "), " -")
		list := strings.Fields(words)
		if want := keys[list[0]]; len(list) > 1 && len(list)-1 != want {
			t.Errorf("%q has %d values, and %s has %d keys", line, len(list)-1, list[0], want)
		}
		examples++
	}
	if examples < 3 {
		t.Errorf("%d examples of explain, want at least 3", examples)
	}
}

// TestExamplesOfTopAreAnswered checks the examples of pages and help: each list has the filters that it is asked with.
func TestExamplesOfTopAreAnswered(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(repo, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"help": newTopCommand(newBench(t).world).Example}
	for _, path := range append(paths, filepath.Join(repo, "README.md")) {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(page)
	}
	filters := map[string][]string{}
	for _, name := range stat.Builtin {
		module, err := stat.New(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, schema := range module.Tables() {
			for _, v := range schema.Views {
				filters[v.Name] = append([]string{"host"}, schema.Keys...)
			}
		}
	}
	examples := 0
	for where, text := range texts {
		for _, m := range regexp.MustCompile(`(?m)\bhttpctl top ([a-z_]+)(.*)$`).FindAllStringSubmatch(text, -1) {
			for _, c := range filterColumns {
				if !regexp.MustCompile(`--` + c.name + `\b`).MatchString(m[2]) {
					continue
				}
				if examples++; filters[m[1]] != nil && !slices.Contains(filters[m[1]], c.name) {
					t.Errorf("%s: %q is refused: %s has no filter %s", where, m[0], m[1], c.name)
				}
			}
		}
	}
	if examples < 3 {
		t.Errorf("%d filters in examples, want at least 3", examples)
	}
}
