package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// derives is a section of which part follows from limit.
type derives struct {
	Limit  Size   `yaml:"limit"`
	Part   Size   `yaml:"part" reload:"soon"`
	Nested nested `yaml:"nested" reload:"at once"`
}

type nested struct {
	A string `yaml:"a"`
	B []int  `yaml:"b" reload:"later"`
}

func (d *derives) Derive(given func(string) bool) (string, []string) {
	if given("part") {
		return "limit", nil
	}
	d.Part = d.Limit / 2
	return "limit", []string{"part"}
}

func TestKeep(t *testing.T) {
	read := func(text string) (*File, *derives) {
		t.Helper()
		d := &derives{Limit: 100}
		f, err := Parse("f.yaml", []byte(text), []string{"HTTPCTL_AGENT_NESTED_B=7"}, Section{"agent", d})
		if err != nil {
			t.Fatal(err)
		}
		return f, d
	}
	try := func(before, after, want string, kept derives) *File {
		t.Helper()
		running, _ := read(before)
		f, d := read(after)
		var got []string
		for _, c := range f.Keep(running) {
			got = append(got, fmt.Sprintf("%s %s>%s %s", c.Path, c.Old, c.New, c.Reload))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("Keep(%q after %q) = %q, want %q", after, before, got, want)
		}
		if fmt.Sprint(*d) != fmt.Sprint(kept) {
			t.Errorf("%q after %q leaves %v, want %v", after, before, *d, kept)
		}
		return f
	}
	b := []int{7} // the environment's goes before the file's
	try("", "", "", derives{100, 50, nested{"", b}})
	try("", "agent: {nested: {a: x, b: [8]}}", `agent.nested.a "">"x" at once`, derives{100, 50, nested{"x", b}})
	f := try("", "agent: {limit: 200}", "agent.limit 100>200 ", derives{100, 50, nested{"", b}}) // part follows from what stays
	if got := f.Where("agent.limit"); got != "as it runs" {
		t.Errorf("Where(agent.limit) = %q, want that it is as it runs", got)
	}
	// What was kept is still seen to be different the next time.
	again, _ := read("agent: {limit: 200, part: 7}")
	if got := again.Keep(f); len(got) != 2 || got[0].Path != "agent.limit" || got[0].Old != "100" || got[1].Path != "agent.part" || got[1].New != "7" {
		t.Errorf("Keep after a Keep = %+v, want limit and part", got)
	}
	try("agent: {part: 9}", "", "agent.part 9>50 soon", derives{100, 50, nested{"", b}})
	try("average_threshold: 1\nlog: {level: warn}", "average_threshold: 2\nmax_keys: 20", `max_keys 1000>20 , log.level "warn">"info" at once`, derives{100, 50, nested{"", b}})
}

// TestKeys lists what programs of different sections use.
func TestKeys(t *testing.T) {
	f, err := Load("", nil, Section{"agent", &derives{}})
	if err != nil {
		t.Fatal(err)
	}
	keys := f.Keys()
	for key, want := range map[Key]bool{{"agent.nested.b", "later"}: true, {"agent.limit", ""}: true, {"log.level", "at once"}: true, {"average_threshold", ""}: false, {"max_keys", ""}: true} {
		if got := slices.Contains(keys, key); got != want {
			t.Errorf("Keys() has %v: %v, want %v", key, got, want)
		}
	}
	if slices.ContainsFunc(keys, func(k Key) bool { return k.Path == "timeout" }) {
		t.Error("Keys() has timeout, which is the aggregator's")
	}
}
