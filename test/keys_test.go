//go:build linux

package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tmux is a terminal that a test types on and reads.
type tmux struct{ socket string }

func (x tmux) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", x.socket, "-f", "/dev/null", "-u"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// shows waits until the screen has all of the texts, and none of those that begin with "no ".
func (x tmux) shows(t *testing.T, texts ...string) {
	t.Helper()
	eventually(t, "the screen shows "+strings.Join(texts, ", "), func() error {
		screen := x.run(t, "capture-pane", "-p", "-t", "it")
		for _, text := range texts {
			text, not := strings.CutPrefix(text, "no ")
			if strings.Contains(screen, text) == not {
				return fmt.Errorf("%q: %v\n%s", text, !not, screen)
			}
		}
		return nil
	})
}

// TestKeys works with the live view as a person does, on a terminal that tmux is.
func TestKeys(t *testing.T) {
	installed(t, "tmux")
	t.Parallel()
	dir := t.TempDir()
	recording, err := filepath.Abs("../demo/recording.pcap.gz")
	if err != nil {
		t.Fatal(err)
	}
	x := tmux{filepath.Join(dir, "tmux")}
	config := write(t, "up.yaml", "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\ntimeout: 300ms\n")
	command := fmt.Sprintf("LANG=C.UTF-8 HOME=/nonexistent %s up --replay %s --data %s/data --config %s; echo it ended with $?; exec sleep 600",
		program(t, "httpctl"), recording, dir, config)
	x.run(t, "new-session", "-d", "-s", "it", "-x", "120", "-y", "40", command)
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", x.socket, "kill-server").Run() })

	x.shows(t, "LEARNING", "Estimate so far")
	x.shows(t, "▸ HOSTS", "shop.example.org", "alert above", "no LEARNING")
	for _, step := range []struct {
		keys  []string
		shows []string
	}{
		{[]string{"Tab"}, []string{"▸ DOMAINS", "  HOSTS"}},
		{[]string{"Enter"}, []string{"fleet › domain ", "▸ SECTIONS"}},
		{[]string{"Enter"}, []string{" › section ", "▸ STATUS CODES"}},
		{[]string{"Escape"}, []string{"fleet › domain ", "no › section"}},
		{[]string{"BSpace"}, []string{"httpctl  fleet ", "no ›"}},
		{[]string{"Tab", "/", "c", "a", "r", "t"}, []string{"/cart 1 of "}},
		{[]string{"Enter", "z"}, []string{"▸ SECTIONS /cart 1 of", "ERROR", "no DOMAINS"}},
		{[]string{"Escape", "Escape"}, []string{"DOMAINS", "no /cart 1 of"}},
		{[]string{"s", "s"}, []string{"↓HITS"}},
		{[]string{"h"}, []string{"COVERED THROUGH", "no DOMAINS"}},
		{[]string{"a"}, []string{"httpctl  alerts of the fleet"}},
		{[]string{"?"}, []string{"these keys", ":since TIME[..TIME]"}},
		{[]string{"Escape"}, []string{"DOMAINS"}},
		{[]string{"Space"}, []string{"◷ PAST"}},
		{[]string{"Space"}, []string{"no ◷ PAST"}},
		{[]string{"t", "3", "0", "m", "Enter"}, []string{"◷ since 30m"}},
		{[]string{"t", "x", "Enter"}, []string{"time: x   x: want how long ago"}},
		{[]string{"Escape"}, []string{"◷ since 30m", "no time:"}},
		{[]string{"Escape"}, []string{"no ◷ since"}},
		{[]string{":", "s", "t", "a", "t", "s", "u", "Enter"}, []string{"did you mean status?"}},
		{[]string{"C-u", "s", "t", "a", "t", "u", "s", "=", "2", "x", "x", "Enter"}, []string{"fleet › status 2xx"}},
	} {
		for _, k := range step.keys {
			x.run(t, "send-keys", "-t", "it", k)
		}
		x.shows(t, step.shows...)
	}
	x.run(t, "resize-window", "-t", "it", "-x", "60", "-y", "20")
	x.shows(t, "fleet › status 2xx", "▸ ")
	x.run(t, "send-keys", "-t", "it", "q")
	x.shows(t, "it ended with 0", "no fleet")
	if on := strings.TrimSpace(x.run(t, "display-message", "-p", "-t", "it", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}")); on != "0 0 1" {
		t.Errorf("alternate screen, mouse, cursor: %s, want 0 0 1", on)
	}
}
