package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestDebs builds the packages of the daemons and looks into them. With HTTPCTL_DEB=full it
// builds all, has lintian look at them, and installs, upgrades and purges them in a clean Debian.
func TestDebs(t *testing.T) {
	installed(t, "go", "dpkg-deb")
	full := os.Getenv("HTTPCTL_DEB") == "full"
	if testing.Short() && !full {
		t.Skip("compiles; left out with -short")
	}
	dir := t.TempDir()
	build := exec.Command("../scripts/deb")
	build.Env = append(os.Environ(), "DIST="+dir, "DEB_ARCHES="+runtime.GOARCH, "SOURCE_DATE_EPOCH=1767323045")
	if !full {
		build.Env = append(build.Env, "DEB_PACKAGES=httpctl-agent httpctl-aggregator", "DEB_COMPRESSION=none")
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("scripts/deb: %v\n%s", err, out)
	}
	ask := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("dpkg-deb", args...)
		cmd.Env = append(os.Environ(), "TZ=UTC")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("dpkg-deb %v: %v", args, err)
		}
		return string(out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if want := map[bool]int{false: 2, true: 3}[full]; err != nil || len(debs) != want {
		t.Fatalf("packages: %v, %v; want %d", debs, err, want)
	}
	for _, deb := range debs {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		var files []string
		for _, m := range regexp.MustCompile(`(?m)^(\S+) (\S+) +\d+ (\S+ \S+) \.(/\S*)$`).FindAllStringSubmatch(ask("--contents", deb), -1) {
			files = append(files, m[4])
			if m[2] != "root/root" || m[3] != "2026-01-02 03:04" || strings.Contains(m[1][4:], "w") || strings.Contains(m[1], "s") {
				t.Errorf("%s: %s is %s of %s, of %s", name, m[4], m[1], m[2], m[3])
			}
		}
		want := []string{"/usr/bin/" + name, "/usr/share/doc/" + name + "/copyright"}
		manuals := []string{"/usr/share/man/man8/" + name + ".8.gz", "/usr/share/man/man5/" + name + ".yaml.5.gz"}
		if name == "httpctl" {
			manuals = []string{"/usr/share/man/man1/httpctl.1.gz", "/usr/share/man/man1/httpctl-top.1.gz"}
		}
		want = append(want, manuals...)
		conffiles := ""
		switch name {
		case "httpctl-agent":
			want = append(want, "/lib/systemd/system/httpctl-agent.service.d/configured.conf", "/usr/share/doc/httpctl-agent/examples/agent.yaml")
		case "httpctl-aggregator":
			conffiles = "/etc/httpctl/aggregator.yaml\n"
			want = append(want, "/etc/httpctl/aggregator.yaml")
		}
		if name != "httpctl" {
			want = append(want, "/lib/systemd/system/"+name+".service", "/usr/lib/sysusers.d/"+name+".conf")
		}
		for _, file := range want {
			if !slices.Contains(files, file) {
				t.Errorf("%s lacks %s", name, file)
			}
		}
		control := filepath.Join(t.TempDir(), "control")
		ask("--control", deb, control)
		if got, _ := os.ReadFile(filepath.Join(control, "conffiles")); string(got) != conffiles {
			t.Errorf("settings of %s = %q, want %q", name, got, conffiles)
		}
		for _, script := range []string{"postinst", "prerm", "postrm"} {
			path := filepath.Join(control, script)
			if _, err := os.Stat(path); (err == nil) != (name != "httpctl") {
				t.Errorf("%s of %s: %v", script, name, err)
			} else if err == nil {
				if out, err := exec.Command("sh", "-n", path).CombinedOutput(); err != nil || strings.Contains(string(read(t, path)), "@NAME@") {
					t.Errorf("%s of %s: %v\n%s", script, name, err, out)
				}
			}
		}
	}
	if !full {
		return
	}
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Log("not looked at by lintian, which is not installed")
	} else if out, err := exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, debs...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	if os.Getuid() != 0 {
		t.Skip("packages are built; to install them in a clean Debian needs root")
	}
	if os.Getenv("ROOT") == "" {
		installed(t, "debootstrap")
	}
	out, err := exec.Command("../scripts/try-deb", dir).CombinedOutput()
	t.Logf("scripts/try-deb:\n%s", out)
	if err != nil {
		t.Error(err)
	}
}
