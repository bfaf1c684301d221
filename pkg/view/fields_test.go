package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
	"github.com/httpctl/httpctl/pkg/testkit/golden"
)

// A fieldSet is what keys the JSON of a command has: the kinds of value by path, "optional" among
// them where it is not always there. Paths are as in docs/json.md: outer.inner, list[], LIST for the name of a list.
type fieldSet map[string]map[string]bool

func (s fieldSet) add(path, kind string) {
	if s[path] == nil {
		s[path] = map[string]bool{}
	}
	s[path][kind] = true
}

// seen collects a command's answers.
type seen struct {
	fields fieldSet
	// objects counts those at each path, keys how often they had each key.
	objects map[string]int
	keys    map[string]map[string]int
	wrong   []string
}

// countsOf are the keys whose values are numbers by name.
var countsOf = []string{"loss", "classes", "smuggling_reasons", "other_protocols", "ttfb_histogram_seconds"}

// elsewhere are the objects that have their keys in another table.
var elsewhere = []string{"other", "rest.LIST.other", "tops[].other", "coverage of httpctl series"}

func (s *seen) walk(command, path, name string, value any) {
	switch v := value.(type) {
	case nil:
		s.fields.add(path, "null")
	case bool:
		s.fields.add(path, "flag")
	case string:
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			s.fields.add(path, "time")
		} else {
			s.fields.add(path, "text")
		}
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			s.fields.add(path, "fraction")
		} else {
			s.fields.add(path, "integer")
		}
	case []any:
		for _, x := range v {
			s.walk(command, path+"[]", "", x)
		}
	case map[string]any:
		switch {
		case slices.Contains(countsOf, name):
			s.fields.add(path, "counts")
			for key, n := range v {
				if _, ok := n.(json.Number); !ok {
					s.wrong = append(s.wrong, fmt.Sprintf("%s has %q: %v", path, key, n))
				}
			}
			return
		case slices.Contains(elsewhere, path) || slices.Contains(elsewhere, path+" of "+command):
			s.fields.add(path, "object")
			return
		}
		lists := command == "httpctl read" && (path == "tops" || path == "rest")
		if !lists {
			s.objects[path]++
			if s.keys[path] == nil {
				s.keys[path] = map[string]int{}
			}
		}
		for key, x := range v {
			if lists {
				key = "LIST"
			} else {
				s.keys[path][key]++
			}
			inner := key
			if path != "" {
				inner = path + "." + key
			}
			s.walk(command, inner, key, x)
		}
	}
}

// written returns the fields of the answers of a command.
func written(t *testing.T, command string) fieldSet {
	s := &seen{fields: fieldSet{}, objects: map[string]int{}, keys: map[string]map[string]int{}}
	for seed := range uint64(100) {
		var b bytes.Buffer
		if err := answers[command](rand.New(rand.NewPCG(seed, 8))).write(&b, FormatJSON); err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(&b)
		d.UseNumber()
		for d.More() {
			var value any
			if err := d.Decode(&value); err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			s.walk(command, "", "", value)
		}
	}
	for _, wrong := range s.wrong {
		t.Errorf("%s: %s", command, wrong)
	}
	for path := range s.fields {
		// A key is not always there where an object on the way to it has been without.
		for at, key := "", path; key != ""; {
			var first string
			first, key, _ = strings.Cut(key, ".")
			if n := s.keys[at][strings.TrimRight(first, "[]")]; s.keys[at] != nil && n < s.objects[at] {
				s.fields[path]["optional"] = true
			}
			at = strings.TrimPrefix(at+"."+first, ".")
		}
	}
	return s.fields
}

// units are the types of docs/json.md: what JSON has for them, and the ends of the names of keys that have them.
var units = map[string]struct {
	kinds []string
	ends  *regexp.Regexp
}{
	"text":       {[]string{"text"}, nil},
	"time":       {[]string{"time"}, nil},
	"integer":    {[]string{"integer"}, nil},
	"bytes":      {[]string{"integer"}, regexp.MustCompile(`(^|_|\.)bytes$`)},
	"seconds":    {[]string{"integer", "fraction"}, regexp.MustCompile(`_seconds$`)},
	"per second": {[]string{"integer", "fraction"}, regexp.MustCompile(`\.rate(_now|_average)?$`)},
	"share":      {[]string{"integer", "fraction"}, regexp.MustCompile(`(share|_ratio)$`)},
	"flag":       {[]string{"flag"}, nil},
	"counts":     {[]string{"counts"}, nil},
	"list":       {nil, nil}, // its elements have a row of their own
	"row":        {[]string{"object"}, nil},
	"coverage":   {[]string{"object"}, nil},
}

// documentedField is a row of a table of docs/json.md.
type documentedField struct{ path, kind string }

// documented reads the tables of docs/json.md, by command.
func documented(t *testing.T) map[string][]documentedField {
	page, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]documentedField{}
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		head, rest, _ := strings.Cut(part, "\n")
		command := strings.Trim(head, "`")
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*?) \\|").FindAllStringSubmatch(rest, -1) {
			out[command] = append(out[command], documentedField{m[1], m[2]})
		}
	}
	return out
}

// asText is the type of an object or of elements that have their table elsewhere.
var asText = regexp.MustCompile("^as (?:`([^`]+)` of )?`(httpctl [^`]+)`$")

// whole resolves the rows that point elsewhere. Later rows replace those that came from there.
func whole(t *testing.T, command string, all map[string][]documentedField) map[string]string {
	out := map[string]string{}
	own := map[string]bool{}
	for _, f := range all[command] {
		m := asText.FindStringSubmatch(f.kind)
		if m == nil {
			if own[f.path] {
				t.Errorf("docs/json.md, %s: %s is there twice", command, f.path)
			}
			own[f.path] = true
			out[f.path] = f.kind
			continue
		}
		if all[m[2]] == nil {
			t.Errorf("docs/json.md, %s: there is no %s", command, m[2])
		}
		for path, kind := range whole(t, m[2], all) {
			rest, ok := strings.CutPrefix(path, m[1])
			if ok && (m[1] == "" || strings.ContainsAny(rest[:1], ".[")) {
				if m[1] == "" {
					rest = "." + rest
				}
				out[f.path+rest] = kind
			}
		}
	}
	return out
}

// TestKeysAreDocumented: docs/json.md has a table for each command, with each key that its JSON has and no other, and the type of each.
func TestKeysAreDocumented(t *testing.T) {
	all := documented(t)
	for command := range all {
		if answers[command] == nil {
			t.Errorf("docs/json.md has a part %s, whose forms nothing compares", command)
		}
	}
	for command := range answers {
		if len(all[command]) == 0 {
			t.Errorf("docs/json.md has no table for %s", command)
			continue
		}
		got, rows := written(t, command), whole(t, command, all)
		for path, text := range rows {
			kinds := got[path]
			if kinds == nil {
				t.Errorf("docs/json.md, %s: no answer has the key %s", command, path)
				continue
			}
			kind, optional := strings.CutSuffix(text, ", optional")
			kind, null := strings.CutSuffix(kind, " or null")
			unit, known := units[kind]
			if !known {
				t.Errorf("docs/json.md, %s: %s has the type %q, which is none", command, path, text)
			}
			if optional != kinds["optional"] || null != kinds["null"] {
				t.Errorf("docs/json.md, %s: %s is %q, and answers have %v", command, path, text, slices.Sorted(maps.Keys(kinds)))
			}
			values := 0
			for k := range kinds {
				if k != "optional" && k != "null" {
					values++
					if !slices.Contains(unit.kinds, k) {
						t.Errorf("docs/json.md, %s: %s is %q, and answers have %s", command, path, text, k)
					}
				}
			}
			if values == 0 && kind != "list" {
				t.Errorf("%s: no answer has a value of %s: the test does not see its type", command, path)
			}
			for name, u := range units {
				if u.ends != nil && u.ends.MatchString(path) != (name == kind) && kind != "counts" {
					t.Errorf("docs/json.md, %s: %s is %q: keys that end so, and only those, are %s", command, path, text, name)
				}
			}
		}
		for path, kinds := range got {
			if rows[path] == "" {
				t.Errorf("docs/json.md, %s: nothing says what %s is: %v", command, path, slices.Sorted(maps.Keys(kinds)))
			}
		}
	}
}

// TestKeysAreStable: what the golden has was once written, and scripts read it. Who takes out a line of it breaks them.
func TestKeysAreStable(t *testing.T) {
	var now []string
	for command := range answers {
		for field, kinds := range written(t, command) {
			if kinds["fraction"] {
				delete(kinds, "fraction")
				delete(kinds, "integer")
				kinds["number"] = true
			}
			now = append(now, fmt.Sprintf("%s: %s %s", command, field, strings.Join(slices.Sorted(maps.Keys(kinds)), " ")))
		}
	}
	golden.Keep(t, "fields", now)
}

// TestCountersAreDocumented: the names of counts that a file's report always has are counters of docs/formats.md.
func TestCountersAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := range exchange.NumCounters {
		if (c.Loss() || c.OtherProtocol() || c.Suspicion()) && !strings.Contains(string(page), "| `"+c.String()+"` |") {
			t.Errorf("docs/formats.md does not say what %s counts", c)
		}
	}
}
