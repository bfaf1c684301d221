package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// section is a part of the configuration for these tests.
type section struct {
	State string   `yaml:"state"`
	Names []string `yaml:"names" reload:"at once"`
}

// running is a started program of which the test decides.
type running struct {
	failed    chan error
	stopErr   error
	stopped   int
	reloaded  []section // what Reload was given
	reloadErr error
	reloads   *telemetry.Reloads
}

func (r *running) Reload(_ context.Context, f *config.File) error {
	r.reloaded = append(r.reloaded, *f.Section("agent").(*section))
	return r.reloadErr
}

func (r *running) Reloads() *telemetry.Reloads { return r.reloads }

func (r *running) Failed() <-chan error { return r.failed }

func (r *running) Stop(context.Context) error {
	r.stopped++
	return r.stopErr
}

// try runs a program with arguments; its context has ended already.
func try(t *testing.T, r *running, startErr error, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if len(r.failed) == 0 {
		cancel()
	}
	defer cancel()
	var s section
	p := Program{
		Name:     "program",
		Section:  config.Section{Name: "agent", Into: &s},
		Settings: []Setting{{Flag: "n", Key: "agent.names", Usage: "a `NAME`"}},
		Tasks: []Task{{Flag: "tell", Usage: "tell the names", Run: func(_ context.Context, _ *config.File, stdout io.Writer) error {
			if len(s.Names) == 0 {
				return errors.New("no names")
			}
			_, err := fmt.Fprintln(stdout, s.Names)
			if s.Names[0] == "bad" {
				err = ErrAnswered
			}
			return err
		}}},
		Short: "a program of tests", Long: "It tests.", Example: "program -n a",
		Commands: []Command{{Name: "look", Help: func() Help {
			return Help{Name: "program look", Short: "look at the names", Usage: []string{"program look NAME"}}
		}, Run: func(_ context.Context, args, env []string, stdout, _ io.Writer) int {
			fmt.Fprintln(stdout, args, env)
			return 7
		}}},
		Protocols: []string{"p.v1"}, Formats: []telemetry.Format{{Name: "file", Version: 3}},
		Start: func(context.Context, *config.File, *slog.Logger) (Running, error) {
			return r, startErr
		},
	}
	var out, err bytes.Buffer
	code = p.run(ctx, nil, args, []string{"HTTPCTL_TIMEOT=3s"}, &out, &err)
	return code, out.String(), err.String()
}

func newRunning() *running { return &running{failed: make(chan error, 1)} }

func TestRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "timeout: 3s\nagent:\n  state: /tmp/x\n")
	named := file("named.yaml", "agent:\n  names: [from-file]\n")
	bad := file("bad.yaml", "timeout: 3s\nagent:\n  stat: /tmp/x\n")
	invalid := file("invalid.yaml", "timeout: -3s\n")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
		stopped        int
	}{
		{args: []string{"--version"}, stdout: "protocol  p.v1\nformats   file 3\n"},
		{args: []string{"--help"}, stdout: "It tests.\n\nExamples:\n  program -n a\n\nUsage:\n  program [flags]\n  program look NAME\n\nCommands:\n  look  look at the names: see program look --help\n\nFlags:\n  --check        check"},
		{args: []string{"--help"}, stdout: "\n  -n NAME        a NAME\n"},
		{args: []string{"look", "--deep", "x"}, code: 7, stdout: "[--deep x] [HTTPCTL_TIMEOT=3s]\n"},
		{args: []string{"--nonsense"}, code: 2, stderr: "program: unknown flag: --nonsense\nSee program --help.\n"},
		{args: []string{"--chekc"}, code: 2, stderr: "unknown flag: --chekc; did you mean --check?\n"},
		{args: []string{"extra"}, code: 2, stderr: `unknown command "extra"; there are: look` + "\nSee"},
		{args: []string{"lok"}, code: 2, stderr: `unknown command "lok"; did you mean "look"?`},
		{args: []string{"--check", "extra"}, code: 2, stderr: `unexpected argument "extra"`},
		{args: []string{"--config", good, "--check"}, stdout: "no faults", stderr: `did you mean "HTTPCTL_TIMEOUT"?`},
		{args: []string{"--config", good, "--dump"}, stdout: "timeout: 3s"},
		{args: []string{"--config", bad}, code: 2, stderr: "state"},
		{args: []string{"--config", invalid}, code: 2, stderr: "timeout"},
		{args: []string{"--config", filepath.Join(dir, "none")}, code: 2, stderr: "no such file"},
		{args: []string{"--config", good}, stderr: "stopping", stopped: 1},
		{args: []string{"--config", named, "--dump"}, stdout: `["from-file"]`},
		{args: []string{"--config", named, "-n", "a", "-n", "b,c", "--tell"}, stdout: "[a b c]\n", stderr: "HTTPCTL_TIMEOUT"},
		{args: []string{"--config", named, "--tell", "-n"}, code: 2, stderr: "flag needs an argument: -n"},
		{args: []string{"-n", "bad", "--tell"}, code: 1, stdout: "[bad]\n"},
		{args: []string{"--tell"}, code: 1, stderr: "program: no names"},
	} {
		r := newRunning()
		code, stdout, stderr := try(t, r, nil, c.args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("program %v = %d, %q, %q, want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
		if r.stopped != c.stopped {
			t.Errorf("program %v stopped %d times, want %d", c.args, r.stopped, c.stopped)
		}
	}
}

func TestFailures(t *testing.T) {
	if code, _, stderr := try(t, newRunning(), errors.New("no such interface")); code != 1 || !strings.Contains(stderr, "no such interface") {
		t.Errorf("a start that fails = %d, %q, want 1 and the reason", code, stderr)
	}
	r := newRunning()
	r.failed <- errors.New("a part has ended")
	if code, _, stderr := try(t, r, nil); code != 1 || !strings.Contains(stderr, "a part has ended") || r.stopped != 1 {
		t.Errorf("a part that fails = %d, %q, stopped %d times, want 1, the reason, once", code, stderr, r.stopped)
	}
	r = newRunning()
	r.stopErr = errors.New("disk gone")
	if code, _, stderr := try(t, r, nil); code != 1 || !strings.Contains(stderr, "disk gone") {
		t.Errorf("a stop that fails = %d, %q, want 1 and the reason", code, stderr)
	}
}
