package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUnitsExposure holds the units to what systemd thinks of their exposure, 0 to 10.
func TestUnitsExposure(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze, which is not installed")
	}
	for name, bar := range map[string]float64{"httpctl-agent": 1.5, "httpctl-aggregator": 2.0} {
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "../deploy/systemd/"+name+".service").CombinedOutput()
		if strings.Contains(string(out), "unrecognized option") {
			t.Skip("needs systemd-analyze of systemd 250")
		}
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+) `).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		if got, err := strconv.ParseFloat(string(m[1]), 64); err != nil || got > bar {
			t.Errorf("systemd says that the exposure of %s is %s, want at most %v:\n%s", name, m[1], bar, out)
		}
	}
}

// TestUnits has systemd check the units, with the programs where they say.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze, which is not installed")
	}
	units, err := filepath.Glob("../deploy/systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units: %v, %v; want two", units, err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(unit)
		program := filepath.Join(dir, strings.TrimSuffix(name, ".service"))
		if !strings.Contains(string(text), "\nExecStart=/usr/local/bin/"+filepath.Base(program)+" --config /etc/httpctl/") {
			t.Errorf("%s starts something else than `make install` installs", name)
		}
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, name)
		if err := os.WriteFile(copied, []byte(strings.ReplaceAll(string(text), "/usr/local/bin", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, copied)
	}
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestMakeInstall: without Go, as under sudo, what is built already is installed, and what is installed, but for directories,
// is what make uninstall removes.
func TestMakeInstall(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("needs make, which is not installed")
	}
	dry := func(target string) string {
		cmd := exec.Command("make", "-n", target, "GO=no-such-go", "DESTDIR=/there")
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make -n %s: %v\n%s", target, err, out)
		}
		return string(out)
	}
	install, uninstall := dry("install"), dry("uninstall")
	if strings.Contains(install, "no-such-go build") || strings.Contains(install, "no-such-go run") {
		t.Errorf("make install builds without Go:\n%s", install)
	}
	for _, path := range regexp.MustCompile(`>(/there\S+)`).FindAllStringSubmatch(install, -1) {
		if !strings.Contains(uninstall, path[1]) {
			t.Errorf("make uninstall leaves %s:\n%s", path[1], uninstall)
		}
	}
	for _, name := range []string{"httpctl", "httpctl-agent", "httpctl-aggregator"} {
		if !strings.Contains(install, "bin/"+name) || !strings.Contains(uninstall, "/there/usr/local/bin/"+name) {
			t.Errorf("%s is not installed and removed:\n%s%s", name, install, uninstall)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if !strings.Contains(install, "completion "+shell+" >") {
			t.Errorf("no completion for %s is installed:\n%s", shell, install)
		}
	}
}
