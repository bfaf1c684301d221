package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/security"
)

// TestContexts walks the life of two contexts.
func TestContexts(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	b.env = map[string]string{"HOME": dir, "LANG": "C.UTF-8"}
	for _, step := range []struct {
		args, out, err string
		code           int
	}{
		{"context", "No context yet", "", 0},
		{"context use prod", "", `there is no context "prod", nor any other: make one with httpctl context set prod --aggregator ADDR`, 2},
		{"context set prod", "", "context set prod needs --aggregator ADDR", 2},
		{"context set a/b --aggregator 127.0.0.1:1", "", `"a/b" is no name for a context`, 2},
		{"context set prod --aggregator nonsense", "", "want host:port or unix:/path", 2},
		{"context set prod --aggregator 192.0.2.1:7420", "", "plain text is for loopback", 2},
		{"context set prod --aggregator 192.0.2.1:7420 --tls-ca /nonexistent --tls-cert /nonexistent --tls-key /nonexistent", "", "no such file", 2},
		{"context set prod --aggregator 127.0.0.1:7421", "Kept context prod.\n", "", 0},
		{"context set staging --aggregator unix:/run/staging.sock", "Kept context staging.\n", "", 0},
		{"context list -o csv", "name,current,aggregator,certificate\nprod,true,127.0.0.1:7421,\nstaging,false,unix:/run/staging.sock,\n", "", 0},
		{"context use stagin", "", `there is no context "stagin"; did you mean "staging"?`, 2},
		{"hosts --context prd", "", `there is no context "prd"; did you mean "prod"?`, 2},
		{"context use staging", "Using context staging.\n", "", 0},
		{"hosts", "web-1", "", 0},
		{"context delete staging", "Forgot context staging.\n", "", 0},
		{"context list -o csv", "prod,false,", "", 0},
	} {
		stdout, stderr, code := b.run(t, strings.Fields(step.args)...)
		if code != step.code || !strings.Contains(stdout, step.out) || !strings.Contains(stderr, step.err) || (step.err == "") != (stderr == "") {
			t.Errorf("httpctl %s: exit %d, %q, stderr %q; want exit %d, %q, %q", step.args, code, stdout, stderr, step.code, step.out, step.err)
		}
	}
	path := filepath.Join(dir, ".config", "httpctl", "contexts.yaml")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v, want mode 0600", path, info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(path, []byte("contexts:\n  prod:\n    agregator: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := b.run(t, "hosts"); code != 1 || !strings.Contains(stderr, "contexts.yaml: [3:5] unknown field \"agregator\"") || !strings.Contains(stderr, "Mend the file") {
		t.Errorf("a broken file: exit %d, %q", code, stderr)
	}
}

// TestPlace: flags go before --context, that before the environment, and that before the current context;
// and no context's certificate goes to an address that is not its own.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "httpctl", "contexts.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "current: prod\ncontexts:\n  prod: {aggregator: \"prod:1\", tls: {ca_file: p, cert_file: p, key_file: p}}\n  lab: {aggregator: \"lab:1\"}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flag, context, aggregator, env, ca string
		address, wantCA                    string
	}{
		{address: "prod:1", wantCA: "p"},
		{ca: "own", address: "prod:1", wantCA: "own"},
		{env: "lab", address: "lab:1"},
		{aggregator: "there:1", env: "lab", address: "there:1"},
		{aggregator: "there:1", context: "prod", address: "prod:1", wantCA: "p"},
		{flag: "here:1", aggregator: "there:1", context: "prod", address: "here:1"},
		{flag: "here:1", ca: "own", address: "here:1", wantCA: "own"},
	} {
		env := map[string]string{"XDG_CONFIG_HOME": dir, "HTTPCTL_AGGREGATOR": c.aggregator, "HTTPCTL_CONTEXT": c.env}
		r := &reading{w: &world{getenv: func(k string) string { return env[k] }}, address: c.flag, context: c.context, tls: security.TLS{CAFile: c.ca}}
		address, tls, err := r.place()
		if err != nil || address != c.address || tls.CAFile != c.wantCA {
			t.Errorf("place of %+v = %s, %q, %v", c, address, tls.CAFile, err)
		}
	}
}

// TestCompletionOfValues: the shell is offered what the aggregator knows and can be typed.
func TestCompletionOfValues(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]string{
		"hosts --host ":          "web-1\n",
		"top section --section ": "example.org/a\n:4\n", // the other has an escape in it
		"top ":                   "section\n",
		"context use ":           ":4\n",
		"hosts --host x,":        "x,web-1\n",
		"hosts --host web-1,":    "\n:4\n", // not again
		"hosts --sort-by ":       "name\nid\nhealth\n",
		"hosts --sort-by=-":      "-name\n-id\n",
		"hosts --columns id,":    "id,name\nid,health\n",
		"series --sort-by ":      "start\nend\nrequests\n",
		"top section --status ":  "2xx\n3xx\n4xx\n5xx\n:4\n",
		"explain section ":       "example.org/a\n:4\n",
		"revoke ":                "web-1\n",
		"hosts --since ":         "\n:4\n", // no files
		"up -i ":                 "any\nlo\n",
		"hosts ":                 "\n:4\n",
		"read ":                  "\n:0\n",
		"hosts --tls-ca ":        "\n:0\n",
	} {
		stdout, _, code := b.run(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if code != 0 || !strings.Contains("\n"+stdout, want) || strings.Contains(stdout, "\x1b") {
			t.Errorf("completion of %q: exit %d, %q, want %q", args, code, stdout, want)
		}
	}
}
