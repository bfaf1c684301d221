// Package golden compares what a test gets with what somebody looked at once and kept.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// Check compares got with testdata/NAME.golden of the test's package, or writes that file if the test was run with -update.
// A difference fails the test and lets it go on.
func Check(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

// Keep compares lines, in any order, with those of testdata/NAME.golden. Lines that are new are added to that file if the test was run
// with -update; one that is there and not in lines fails the test, also with -update: somebody has to take it out by hand.
func Keep(t testing.TB, name string, lines []string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	text, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	kept := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for _, line := range kept {
		if line != "" && !slices.Contains(lines, line) {
			t.Errorf("%s: %q is gone", name, line)
		}
	}
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(kept, lines))))
	all = slices.DeleteFunc(all, func(line string) bool { return line == "" })
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(all, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, line := range all {
		if !slices.Contains(kept, line) {
			t.Errorf("%s: %q is new: -update adds it", name, line)
		}
	}
}
