package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
	"github.com/httpctl/httpctl/cmd/httpctl/client"
)

// olderCommit is the commit whose programs those of now have to work with: that of the last
// release, or as long as there is none, of the first version that was used.
const olderCommit = "f28e4448cfe5a756b975ecd2439991e6680babe1"

// olderPrograms builds the aggregator of the older commit, and as its agent the program of its
// tests, which shows it a capture (TestAgentProcess).
func olderPrograms(t *testing.T) (aggregator, agent string) {
	t.Helper()
	installed(t, "go", "git", "tar", "nice")
	git := exec.Command("git", "archive", olderCommit)
	git.Dir = ".."
	archive := filepath.Join(t.TempDir(), "tar")
	out, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	git.Stdout = out
	if err := git.Run(); err != nil {
		t.Skipf("needs the commit %.12s of the git repository, which is not in this clone: %v", olderCommit, err)
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"tar", "-x", "-f", archive},
		{"go", "build", "-buildvcs=false", "-o", "bin/aggregator", "./cmd/httpctl-aggregator"},
		{"go", "test", "-buildvcs=false", "-c", "-o", "bin/agent", "./test"},
	} {
		cmd := exec.Command("nice", append([]string{"-n", "5"}, args...)...) // other tests run meanwhile
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v at commit %.12s: %v\n%s", args, olderCommit, err, out)
		}
	}
	return filepath.Join(dir, "bin/aggregator"), filepath.Join(dir, "bin/agent")
}

// TestRollingUpgrade replaces the programs of a fleet by newer ones while they count: the
// aggregator first, then the agents. On the way an older agent has delivered to
// the newer aggregator, and a newer agent to the older one. Nothing is lost, nothing counted twice.
func TestRollingUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles; left out with -short")
	}
	t.Parallel()
	olderAggregator, olderAgent := olderPrograms(t)
	c := &center{t: t, settings: quick(), cfg: aggregator.DefaultConfig()}
	c.cfg.Data, c.cfg.Listen = t.TempDir(), nil
	first := launchCommand(t, exec.Command(olderAggregator, "--config", write(t, "aggregator.yaml", fmt.Sprintf(
		"timeout: %v\ndashboard_bucket_size: %v\naverage_bucket_size: %v\naggregator: {data: %s, listen: []}\n",
		c.settings.Timeout, c.settings.DashboardBucketSize, c.settings.AverageBucketSize, c.cfg.Data))))
	first.says(t, "serving")
	c.connect()

	want := newTruth()
	file, seen := traffic(t, 21, 8*time.Second, 60)
	want.add(seen)
	startWatcher(t, c.settings, agentConfig(c.address(), stateDir(t), "newer"), file)
	file, seen = traffic(t, 22, 8*time.Second, 60)
	want.add(seen)
	state := stateDir(t)
	older := startAgentProcess(t, olderAgent, c.address(), state, file)

	bothSeen := func(what string, since time.Time) {
		t.Helper()
		eventually(t, what, func() error {
			hosts, err := c.client.Hosts(t.Context(), client.Question{})
			var fresh []string
			for _, h := range hosts {
				if h.CoveredThrough.After(since) {
					fresh = append(fresh, h.Name)
				}
			}
			slices.Sort(fresh)
			if err == nil && !slices.Equal(fresh, []string{"newer", "web-1"}) {
				err = fmt.Errorf("heard of %v", fresh)
			}
			return err
		})
	}
	bothSeen("both agents deliver to the older aggregator", time.Now())
	if code := first.stop(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("the older aggregator ended with %d:\n%s", code, first.out.String())
	}
	replaced := time.Now()
	c.start()
	bothSeen("both agents deliver to the newer aggregator", replaced)
	c.settled("nothing is lost where the aggregator was replaced, nothing counted twice", want)
	c.nothingUnobserved()

	stopped := time.Now()
	older.end(t)
	file, seen = traffic(t, 23, 2*time.Second, 60)
	want.add(seen)
	startWatcher(t, c.settings, agentConfig(c.address(), state, "web-1"), file)
	away := time.Since(stopped)
	c.settled("nothing is lost where the agent was replaced, nothing counted twice", want)
	if n := c.unobserved(); n < 1 || n > uint64(away.Seconds())+5 {
		t.Errorf("%d s are declared unobserved, want the moments between the agents, of %v", n, away)
	}
}
