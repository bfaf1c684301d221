package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/pkg/authority"
)

// storeSays runs `httpctl-aggregator store` on the data of an aggregator.
func (c *center) storeSays(code int, args ...string) string {
	c.t.Helper()
	args = append([]string{"httpctl-aggregator", "store"}, append(args, "--data", c.cfg.Data)...)
	got := try(c.t, nil, args...)
	if got.code != code {
		c.t.Fatalf("%q = %d, want %d\n%s%s", args, got.code, code, got.stdout, got.stderr)
	}
	return got.stdout + got.stderr
}

// TestBackupAndRestore backs up an aggregator while an agent delivers, loses it, and restores. What was
// delivered after the backup and before the loss is gone and said to be; everything else is there, once.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	c := newCenter(t, nil)
	const n, step = 2400, 5 * time.Millisecond
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "web-1"), numbered(t, 0, n, step))
	begun := time.Now()
	backup := filepath.Join(t.TempDir(), "httpctl.backup")
	covered := func(through time.Time) {
		t.Helper()
		eventually(t, "what was before "+through.String()+" is stored", func() error {
			hosts, err := c.client.Hosts(t.Context(), client.Question{})
			if err == nil && (len(hosts) != 1 || hosts[0].CoveredThrough.Before(through)) {
				err = fmt.Errorf("%+v", hosts)
			}
			return err
		})
	}
	covered(begun.Add(3 * time.Second))
	if out := c.storeSays(0, "backup", "-o", backup); !strings.Contains(out, "httpctl.backup: sound\n") {
		t.Errorf("store backup says:\n%s", out)
	}
	covered(time.Now().Add(2 * time.Second))
	c.storeSays(3, "check") // it runs
	c.storeSays(1, "restore", backup)
	c.stop()
	if out := c.storeSays(1, "restore", backup); !strings.Contains(out, "--force") {
		t.Errorf("store restore over a store says:\n%s", out)
	}
	out := c.storeSays(0, "restore", "--force", backup)
	m := regexp.MustCompile(`it ends at (\S+), the one before at (\S+): what agents delivered of that time is gone`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("store restore does not say what is gone:\n%s", out)
	}
	from, _ := time.Parse(time.RFC3339, m[1])
	to, err := time.Parse(time.RFC3339, m[2])
	if err != nil || to.Sub(from) < time.Second || to.Sub(from) > time.Since(begun) {
		t.Fatalf("store restore says that what is between %s and %s is gone", m[1], m[2])
	}
	const again = "revoke them again"
	if strings.Contains(out, again) {
		t.Errorf("store restore speaks of revocations where no authority is:\n%s", out)
	}
	if kept, _ := filepath.Glob(filepath.Join(c.cfg.Data, "httpctl.db.before-restore-*")); len(kept) != 1 {
		t.Errorf("the old database is not kept: %q", kept)
	}
	// With an authority its database also knows who was revoked.
	time.Sleep(time.Second) // what is kept beside is named by the second
	ca := authority.Dir(c.cfg.Data)
	if _, err := authority.Create(ca, authority.DefaultTrustDomain, authority.Owner{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if out := c.storeSays(0, "restore", "--force", backup); strings.Contains(out, again) || !strings.Contains(out, "is as the database that was there had it") {
		t.Errorf("store restore does not say that revocations are carried over:\n%s", out)
	}
	if err := os.Remove(filepath.Join(c.cfg.Data, "httpctl.db")); err != nil {
		t.Fatal(err)
	}
	if out := c.storeSays(0, "restore", backup); !strings.Contains(out, again) {
		t.Errorf("store restore does not say that revocations are forgotten:\n%s", out)
	}
	if err := os.RemoveAll(ca); err != nil {
		t.Fatal(err)
	}
	c.start()
	eventually(t, "the last request is delivered", func() error {
		top, err := c.client.Top(t.Context(), "section", client.Question{Limit: 10_000})
		if err == nil && len(top.Rows) > 0 {
			for _, row := range top.Rows {
				if number(t, row.Keys[0]) == n-1 {
					return nil
				}
			}
		}
		return errorsOr(err, "it is not there yet")
	})
	eventually(t, "the host's coverage goes on", func() error {
		hosts, err := c.client.Hosts(t.Context(), client.Question{})
		if err == nil && len(hosts) == 1 && hosts[0].CoveredThrough.After(to) {
			return nil
		}
		return errorsOr(err, "it does not")
	})
	c.stop()
	c.storeSays(0, "check")
	c.storeSays(0, "compact")

	seen := map[int]int64{}
	c.stored(func(s *store.Slice) {
		last := s.Table.Schema.Measure("last_seen")
		for _, row := range s.Table.Rows {
			k := number(t, row.Keys[0])
			if row.Values[0] != 1 || seen[k] != 0 {
				t.Errorf("request %d is stored more than once", k)
			}
			seen[k] = row.Values[last]
		}
	})
	gone := 0
	for k := range n {
		at := time.Unix(0, seen[0]+int64(k)*int64(step))
		inside := !at.Before(from) && at.Before(to)
		if (seen[k] == 0) != inside && at.Sub(from).Abs() > time.Millisecond && at.Sub(to).Abs() > time.Millisecond {
			t.Errorf("request %d, at %v, is stored: %t; gone is what was between %v and %v", k, at, seen[k] != 0, from, to)
		}
		if inside {
			gone++
		}
	}
	t.Logf("%d of %d requests were between %v and %v, and are gone", gone, n, from, to)
}

// errorsOr is err, or one that says so.
func errorsOr(err error, otherwise string) error {
	if err == nil {
		err = errors.New(otherwise)
	}
	return err
}

// TestDocsStore runs the store commands of docs/operations.md as they stand there, on a directory of this test.
func TestDocsStore(t *testing.T) {
	installed(t, "bash")
	c := newCenter(t, nil)
	var running, stopped []string
	for line := range strings.Lines(page(t, "docs/operations.md")) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.Contains(line, "httpctl-aggregator store ") || !strings.HasPrefix(line, "sudo "):
		case strings.Contains(line, " backup "):
			running = append(running, line)
		default:
			stopped = append(stopped, line)
		}
	}
	if len(running) < 2 || len(stopped) < 4 {
		t.Fatalf("the page has the commands %q and %q, want at least 2 and 4", running, stopped)
	}
	backups := t.TempDir()
	run := func(line string) {
		t.Helper()
		script := strings.NewReplacer("sudo ", "", "httpctl-aggregator store", program(t, "httpctl-aggregator")+" store",
			"/var/lib/httpctl", c.cfg.Data, "/backup/", backups+"/").Replace(line)
		var out bytes.Buffer
		cmd := exec.Command("bash", "-ec", "set -o pipefail; "+script)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out.String())
		}
	}
	for _, line := range running {
		run(line)
	}
	c.stop()
	for _, line := range stopped {
		run(line)
	}
}
