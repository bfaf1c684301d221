package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// untilReloaded collects what is written, and hands it over with the last line of a reload.
type untilReloaded struct {
	text bytes.Buffer
	done chan string
}

func (u *untilReloaded) Write(line []byte) (int, error) {
	u.text.Write(line)
	if bytes.Contains(line, []byte("the configuration is ")) {
		u.done <- u.text.String()
		u.text.Reset()
	}
	return len(line), nil
}

// TestReload changes the file of a program that runs, one time after the other.
func TestReload(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := newRunning()
	r.reloads = telemetry.NewReloads(registry)
	path := filepath.Join(t.TempDir(), "program.yaml")
	text := func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text("agent:\n  state: /a\n  names: [one]\n")
	hangups, out := make(chan os.Signal), &untilReloaded{done: make(chan string, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	var s section
	started := make(chan struct{})
	p := Program{
		Name: "program", Section: config.Section{Name: "agent", Into: &s}, Fresh: func() any { return &section{} },
		Start: func(context.Context, *config.File, *slog.Logger) (Running, error) {
			close(started)
			return r, nil
		},
	}
	ended := make(chan int)
	go func() {
		ended <- p.run(ctx, hangups, []string{"--config", path}, []string{"HTTPCTL_LOG_FORMAT=text"}, out, out)
	}()
	<-started // it has read the file, which is written anew below
	for _, c := range []struct {
		name, text string
		fail       error
		given      *section // to Reload; nil: it is not called
		ok         float64
		says, not  []string
	}{
		{name: "nothing", text: "agent:\n  state: /a\n  names: [one]\n", given: &section{"/a", []string{"one"}}, ok: 1, says: []string{"changed=0 need_restart=0"}},
		{name: "level and names", text: "agent:\n  state: /a\n  names: [one, two]\nlog:\n  level: debug\n  format: json\n", given: &section{"/a", []string{"one", "two"}}, ok: 1,
			says: []string{`msg="a changed setting is in force" key=agent.names was="[\"one\"]" is="[\"one\", \"two\"]" from="at once"`, `key=log.level was="\"info\"" is="\"debug\""`, "changed=2 need_restart=0"},
			not:  []string{"log.format"}}, // which the environment sets
		{name: "a key of another program", text: "timeout: 3s\naverage_threshold: 5\nagent:\n  state: /a\n  names: [one, two]\n", given: &section{"/a", []string{"one", "two"}}, ok: 1,
			says: []string{"key=log.level", "changed=1 need_restart=0"}, not: []string{"timeout", "average_threshold"}},
		{name: "what needs a restart", text: "agent:\n  state: /b\n  names: [three]\n", given: &section{"/a", []string{"three"}}, ok: 1,
			says: []string{`level=WARN msg="a changed setting needs a restart" key=agent.state in_force="\"/a\"" configured="\"/b\""`, "changed=1 need_restart=1"}},
		{name: "not valid", text: "agent:\n  nams: [four]\nlog:\n  level: warn\n", ok: 0,
			says: []string{"level=ERROR", "all settings stay as they were", "there is no such key", `did you mean \"names\"?`}},
		{name: "what cannot be put in force", text: "agent:\n  state: /a\n  names: [five]\n", fail: errors.New("no such name"), given: &section{"/a", []string{"five"}}, ok: 0,
			says: []string{"level=ERROR", "no such name"}, not: []string{"in force"}},
		{name: "mended", text: "agent:\n  state: /b\n  names: [six]\n", given: &section{"/a", []string{"six"}}, ok: 1,
			says: []string{`key=agent.names was="[\"three\"]" is="[\"six\"]"`, "key=agent.state", "changed=1 need_restart=1"}},
	} {
		text(c.text)
		r.reloaded, r.reloadErr = nil, c.fail
		hangups <- syscall.SIGHUP
		said := <-out.done
		var want []section
		if c.given != nil {
			want = []section{*c.given}
		}
		if !reflect.DeepEqual(r.reloaded, want) {
			t.Errorf("%s: Reload was given %+v, want %+v", c.name, r.reloaded, want)
		}
		for _, part := range c.says {
			if !strings.Contains(said, part) {
				t.Errorf("%s: the log is\n%swant %s in it", c.name, said, part)
			}
		}
		for _, part := range c.not {
			if strings.Contains(said, part) {
				t.Errorf("%s: the log is\n%swant no %s in it", c.name, said, part)
			}
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if got := f.Metric[0].GetGauge().GetValue(); f.GetName() == "httpctl_config_last_reload_successful" && got != c.ok {
				t.Errorf("%s: %s = %v, want %v", c.name, f.GetName(), got, c.ok)
			}
		}
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("the program ends with %d, want 0", code)
	}
}
