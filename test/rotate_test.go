package test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/httpctl/httpctl/pkg/authority"
	"github.com/httpctl/httpctl/pkg/config"
)

// commandsOf returns the commands of a section of a page, in order: indented lines, without their comments.
func commandsOf(t *testing.T, file, section string) (commands []string) {
	t.Helper()
	_, text, ok := strings.Cut(page(t, file), "\n"+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", file, section)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			break
		}
		if command, ok := strings.CutPrefix(line, "    "); ok {
			command, _, _ = strings.Cut(command, "  #")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// TestDocsRotateAuthority runs the commands by which docs/operations.md replaces the authority, as they stand there but for paths and how long
// certificates live, in a fleet of one host and a reader. The host stays in all the while.
func TestDocsRotateAuthority(t *testing.T) {
	t.Parallel()
	mayCapture(t)
	commands := commandsOf(t, "docs/operations.md", "### Replace the authority")
	const rotate = "sudo httpctl ca rotate"
	rotations := 0
	for _, c := range commands {
		if c == rotate {
			rotations++
		}
	}
	if rotations != 3 || len(commands) < 5 {
		t.Fatalf("the page has the commands %q, want three times %q and what comes between", commands, rotate)
	}

	dir, listen := t.TempDir(), freePort(t)
	data, state := filepath.Join(dir, "data"), filepath.Join(dir, "state")
	socket := "unix:" + config.SocketPath(data)
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	settings := write(t, "aggregator.yaml",
		fmt.Sprintf("dashboard_bucket_size: 1s\naverage_bucket_size: 10s\naggregator:\n  data: %s\n  listen: ['%s']\n  enroll: {certificate_life: 15s}\n", data, listen))
	serve := func() *background {
		t.Helper()
		b := launch(t, "httpctl-aggregator", "--config", settings)
		b.says(t, "address="+listen+" tls=true")
		return b
	}
	center := serve()
	token := filepath.Join(dir, "token")
	commanded(t, "httpctl", "enroll", "create", "-o", token, "--aggregator", socket)
	commanded(t, "httpctl-agent", "enroll", "--token-file", token, "--state", state)
	agent := launch(t, "httpctl-agent", "-i", "lo", "--config", write(t, "agent.yaml", "agent:\n  state: "+state+"\n  backoff_max: 1s\n"))
	agent.says(t, "connected to the aggregator")
	commanded(t, "httpctl", "ca", "issue", "--data", data, "--role", "viewer", "alice", "-o", filepath.Join(dir, "alice"))

	// told is what the host knows: how many authorities, and whether its certificate is of the one that signs.
	told := func() (authorities int, signed bool) {
		t.Helper()
		cas, err := os.ReadFile(filepath.Join(state, "tls", "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := os.ReadFile(filepath.Join(state, "tls", "agent.pem"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := authority.Open(authority.Dir(data))
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(pair); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				c, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				signed = c.CheckSignatureFrom(a.Certificate()) == nil
			}
		}
		return strings.Count(string(cas), "BEGIN CERTIFICATE"), signed
	}
	reads := func() error {
		s := try(t, nil, "httpctl", "hosts", "--aggregator", listen, "--tls-ca", filepath.Join(dir, "alice", "ca.pem"),
			"--tls-cert", filepath.Join(dir, "alice", "alice.pem"), "--tls-key", filepath.Join(dir, "alice", "alice.key"))
		if s.code != 0 {
			return fmt.Errorf("exit %d: %s", s.code, s.stderr)
		}
		return nil
	}
	before, err := authority.Open(authority.Dir(data))
	if err != nil {
		t.Fatal(err)
	}
	id, err := os.ReadFile(filepath.Join(state, "host-id"))
	if err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{filepath.Dir(program(t, "httpctl")), filepath.Dir(program(t, "httpctl-agent")), os.Getenv("PATH")}, ":")
	run := func(command string, more ...string) (string, error) {
		t.Helper()
		script := strings.NewReplacer("sudo ", "", "/var/lib/httpctl-agent", state, "/var/lib/httpctl", data, "HOSTID", strings.TrimSpace(string(id))).Replace(command)
		switch {
		case strings.HasPrefix(script, "httpctl ca "):
			more = append(more, "--data", data)
		case strings.HasPrefix(script, "httpctl "):
			more = append(more, "--aggregator", socket)
		}
		cmd := exec.Command("bash", "-ec", script+" "+strings.Join(more, " "))
		cmd.Dir, cmd.Env = dir, []string{"HOME=/nonexistent", "PATH=" + path}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(command string, more ...string) {
		t.Helper()
		if out, err := run(command, more...); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	step := 0
	for _, command := range commands {
		if command != rotate {
			must(command)
			continue
		}
		if out, err := run(command, []string{"", "--wait 1h", "--wait 1h"}[step]); step > 0 && (err == nil || !strings.Contains(out, "hosts have until")) {
			t.Errorf("step %d at once: %v, want it refused\n%s", step+1, err, out)
		} else if step > 0 {
			must(command, "--wait", "0s")
		}
		step++
		authorities := []int{2, 2, 1}[step-1]
		eventually(t, fmt.Sprintf("the host has renewed after step %d", step), func() error {
			if n, signed := told(); n != authorities || !signed {
				return fmt.Errorf("it knows %d authorities, and its certificate is of the one that signs: %t; want %d", n, signed, authorities)
			}
			return nil
		})
		if err := reads(); err != nil {
			t.Errorf("after step %d, a reader: %v", step, err)
		}
	}
	if err := reads(); err != nil {
		t.Errorf("after the rotation, a reader: %v", err)
	}
	after, err := authority.Open(authority.Dir(data))
	if err != nil || after.Fingerprint() == before.Fingerprint() || len(after.Accepted()) != 1 {
		t.Errorf("after the rotation %d authorities are accepted, %v, want the new one", len(after.Accepted()), err)
	}
	reports := func(want string) {
		t.Helper()
		eventually(t, "the host's connection", func() error {
			if out := commanded(t, "httpctl", "hosts", "-o", "json", "--aggregator", socket); !strings.Contains(out, `"connected": `+want) {
				return fmt.Errorf("want %s:\n%s", want, out)
			}
			return nil
		})
	}
	reports("true")
	if strings.Contains(agent.out.String(), "cannot be renewed") || strings.Contains(agent.out.String(), "does not renew") {
		t.Errorf("the agent could not renew meanwhile:\n%s", agent.out.String())
	}

	// At once, all are out, and let in again by a token each.
	for _, command := range commandsOf(t, "docs/operations.md", "### When somebody may have read ca.key") {
		if strings.Contains(command, "systemctl restart httpctl-aggregator") {
			center.stop(t, syscall.SIGTERM)
			center = serve()
			reports("false")
			continue
		}
		must(command)
	}
	reports("true")
}
