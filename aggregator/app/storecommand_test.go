package app

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/httpctl/httpctl/aggregator/store/bolt"
)

// tryStore runs a store command.
func tryStore(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = storeCommand(t.Context(), args, nil, &out, &err)
	return code, out.String(), err.String()
}

func TestStoreCommand(t *testing.T) {
	dir, damaged, held := t.TempDir(), t.TempDir(), t.TempDir()
	for _, d := range []string{dir, damaged} {
		s, err := bolt.Open(filepath.Join(d, databaseName), bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d == damaged {
			if _, err := s.CompareAndSwap(context.Background(), "baseline/fleet", 0, []byte("no JSON")); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
	}
	s, err := bolt.Open(filepath.Join(held, databaseName), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, tt := range []struct {
		args           []string
		code           int
		stdout, stderr string // regular expressions
	}{
		{nil, 2, `^$`, `\nUsage:\n  httpctl-aggregator store COMMAND`},
		{[]string{"--help"}, 0, `\nExamples:\n(?s:.*)\nUsage:\n(?s:.*)--drop-damaged`, `^$`},
		{[]string{"chekc"}, 2, `^$`, `unknown command "chekc"; did you mean "check"\?\nSee httpctl-aggregator store --help.\n$`},
		{[]string{"compact", "--data", dir, "x"}, 2, `^$`, `unexpected argument "x"\n$`},
		{[]string{"check", "--drop-damaged"}, 2, `^$`, `unknown flag: --drop-damaged\nSee`},
		{[]string{"check", "--config", "/nonexistent/a.yaml"}, 2, `^$`, `/nonexistent/a.yaml`},
		{[]string{"check", "--data", "/nonexistent"}, 3, `^$`, `/nonexistent/httpctl.db: no database is there: file does not exist(?s:.*)--data`},
		{[]string{"check", "--data", held}, 3, `^$`, `another process has it open(?s:.*)stop the aggregator`},
		{[]string{"compact", "--data", held}, 1, `^$`, `another process has it open`},
		{[]string{"check", "--data", dir}, 0, `^\S+/httpctl.db: sound\nintervals +0, from never to never\nroll-ups +0 minutes, hours and days\nhosts +0\nbuckets +0\nstate +0 values\nsealed through +never\nsize +\d+ bytes, \d+ pages of \d+, \d+ of them free\n$`, `^$`},
		{[]string{"check", filepath.Join(dir, databaseName), "--data", damaged}, 0, `: sound\n`, `^$`},
		{[]string{"check", "--data", damaged}, 1, `^damaged: the state "baseline/fleet": decode baseline: .*\n    the aggregator does not start on it; .*--drop-damaged.\n\n\S+: damaged in 1 places\nintervals`, `^$`},
		{[]string{"compact", "--data", damaged}, 1, `^damaged: `, `it is damaged, in 1 places; .*--drop-damaged`},
		{[]string{"compact", "--drop-damaged", "--data", damaged}, 0, `left out: state "baseline/fleet"\n\S+: \d+ bytes before, \d+ after\n$`, `^$`},
		{[]string{"check", "--data", damaged}, 0, `: sound\n`, `^$`},
	} {
		code, stdout, stderr := tryStore(t, tt.args...)
		if code != tt.code || !regexp.MustCompile(tt.stdout).MatchString(stdout) || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
			t.Errorf("store %q = %d, %q, %q, want %d, %q, %q", tt.args, code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
		}
	}
}
