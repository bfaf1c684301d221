package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPageCertificate: Chromium, which has imported what the documents say, shows the page of an address beyond loopback, and without a
// certificate says what to do.
func TestPageCertificate(t *testing.T) {
	t.Parallel()
	cmd := webTools(t, "test/certificate.mjs") // skips without what it needs
	if os.Geteuid() != 0 {
		t.Skip("needs root: the browser's policy stands below /etc, in a mount of its own")
	}
	for _, tool := range []string{"certutil", "pk12util", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian's libnss3-tools, openssl): run scripts/test-tools as root", tool)
		}
	}
	chromium := ""
	for _, e := range cmd.Env {
		if path, ok := strings.CutPrefix(e, "CHROMIUM="); ok {
			chromium = path
		}
	}
	dir := t.TempDir()
	host := ownAddress(t)
	_, port, _ := net.SplitHostPort(freePort(t))
	data, address := filepath.Join(dir, "data"), net.JoinHostPort(host, port)
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", host)
	commanded(t, "httpctl", "ca", "issue", "--data", data, "alice", "-o", filepath.Join(dir, "viewer"))
	center := launch(t, "httpctl-aggregator", "--config", write(t, "aggregator.yaml",
		fmt.Sprintf("timeout: 300ms\naggregator:\n  data: %s\n  listen: []\n  web: {listen: ['%s']}\n", data, address)))
	center.says(t, "serving the web page")

	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
	for _, role := range []string{"", "viewer"} {
		home := t.TempDir()
		store := filepath.Join(home, ".pki", "nssdb")
		if err := os.MkdirAll(store, 0o700); err != nil {
			t.Fatal(err)
		}
		run("certutil", "-d", "sql:"+store, "-N", "--empty-password")
		run("certutil", "-d", "sql:"+store, "-A", "-t", "C,,", "-n", "fleet", "-i", filepath.Join(dir, "viewer", "ca.pem"))
		if role != "" {
			key := filepath.Join(dir, role, "alice")
			run("openssl", "pkcs12", "-export", "-in", key+".pem", "-inkey", key+".key", "-out", key+".p12", "-passout", "pass:secret")
			run("pk12util", "-d", "sql:"+store, "-i", key+".p12", "-W", "secret")
		}
		// A browser without a window asks nobody which certificate to show: its policy says so, below /etc, which is its own here.
		policy := fmt.Sprintf(`{"AutoSelectCertificateForUrls": ["{\"pattern\":\"https://%s\",\"filter\":{}}"]}`, address)
		wrapper := filepath.Join(home, "chromium")
		script := fmt.Sprintf("#!/bin/sh\nexport HOME='%s'\nexec unshare --mount sh -ec 'mkdir -p /etc/chromium\nmount -t tmpfs none /etc/chromium\nmkdir -p /etc/chromium/policies/managed\n"+
			"cp \"$HOME/policy.json\" /etc/chromium/policies/managed/\nexec \"$@\"' sh '%s' \"$@\"\n", home, chromium)
		for name, text := range map[string]string{wrapper: script, filepath.Join(home, "policy.json"): policy} {
			if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		cmd := webTools(t, "test/certificate.mjs", "https://"+address+"/")
		cmd.Env = append(cmd.Env, "CHROMIUM="+wrapper)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("the browser's script: %v: %s", err, out)
		}
		var shown struct {
			Status       int
			Text, Ground string
			Complaints   []string
		}
		if err := json.Unmarshal(out, &shown); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if role != "" {
			if shown.Status != 200 || !strings.Contains(shown.Text, "No agent has reported yet") || len(shown.Complaints) > 0 {
				t.Errorf("with the certificate of a %s: %s", role, out)
			}
			continue
		}
		for _, want := range []string{"Forbidden", "a peer without a certificate", "httpctl ca issue", "ssh -L"} {
			if shown.Status != 403 || !strings.Contains(shown.Text, want) || shown.Ground != "4px" {
				t.Errorf("without a certificate: want 403, %q, and its style: %s", want, out)
			}
		}
	}
}

// ownAddress is an IPv4 address of this host beyond loopback; where there is none, that of loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}
