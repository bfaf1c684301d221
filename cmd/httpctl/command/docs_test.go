package command

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
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

// TestCommandPageListsCommandsAndKeys checks docs/cli.md against the commands and the goldens of JSON.
func TestCommandPageListsCommandsAndKeys(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repo, "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	var started bool
	for _, c := range newRootCommand(newBench(t).world, &started).Commands() {
		if !strings.Contains(string(page), "`"+c.Name()) {
			t.Errorf("docs/cli.md does not name the command %s", c.Name())
		}
	}
	goldens, _ := filepath.Glob("testdata/*json.golden")
	for _, path := range goldens {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"([a-z0-9_]+)":`).FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(page), `"`+m[1]+`"`) && !strings.Contains(string(page), "`"+m[1]+"`") && m[1] != "kernel_drops" && m[1] != "last_seen" {
				t.Errorf("docs/cli.md does not name the key %s of %s", m[1], path)
			}
		}
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
