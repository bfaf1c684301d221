package telemetry

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	vcs := []debug.BuildSetting{
		{Key: "GOARCH", Value: "arm64"}, {Key: "GOOS", Value: "linux"},
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
	}
	for _, c := range []struct {
		info    *debug.BuildInfo
		version string
		text    []string
	}{
		{
			&debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.3+dirty"}, Settings: vcs}, "v1.2.3+dirty",
			[]string{
				"program v1.2.3+dirty",
				"commit    0123456789abcdef of 2026-01-02T03:04:05Z, with changes",
				"go        go1.26 linux/arm64",
				"protocol  p.v1, q.v2",
				"formats   bucket 1, store 2",
			},
		},
		{
			&debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "(devel)"}, Settings: vcs}, "devel-0123456789ab+dirty",
			[]string{
				"program devel-0123456789ab+dirty",
				"commit    0123456789abcdef of 2026-01-02T03:04:05Z, with changes",
				"go        go1.26 linux/arm64",
				"protocol  p.v1, q.v2",
				"formats   bucket 1, store 2",
			},
		},
		{
			&debug.BuildInfo{GoVersion: "go1.26"}, "devel",
			[]string{"program devel", "go        go1.26", "protocol  p.v1, q.v2", "formats   bucket 1, store 2"},
		},
		{nil, "unknown", []string{"program unknown", "protocol  p.v1, q.v2", "formats   bucket 1, store 2"}},
	} {
		b := readBuild(c.info)
		if b.Version != c.version {
			t.Errorf("version of %v = %q, want %q", c.info, b.Version, c.version)
		}
		got := b.Text("program", []string{"p.v1", "q.v2"}, []Format{{"bucket", 1}, {"store", 2}})
		if want := strings.Join(c.text, "\n") + "\n"; got != want {
			t.Errorf("text of %v =\n%s\nwant\n%s", c.info, got, want)
		}
	}
	if got := (Build{Version: "v1"}).Text("program", nil, nil); got != "program v1\n" {
		t.Errorf("text of a version alone = %q", got)
	}
}
