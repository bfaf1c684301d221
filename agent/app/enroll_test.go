package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/agent/enroll"
	"github.com/httpctl/httpctl/pkg/config"
)

// TestEnrolledHostNeedsNoSettings: what its enrolment says is in force, and the dump says so; settings go first.
func TestEnrolledHostNeedsNoSettings(t *testing.T) {
	state := t.TempDir()
	folder := filepath.Dir(enroll.In(state).TLS().CertFile)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"agent.pem": "", "ca.pem": "", "aggregator": "center.example.org:7420\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := enroll.In(state).TLS()
	for name, c := range map[string]struct{ text, aggregator, cert string }{
		"nothing":        {"agent: {state: " + state + "}", "center.example.org:7420", own.CertFile},
		"an aggregator":  {"agent: {state: " + state + ", aggregator: '192.0.2.1:7420'}", "192.0.2.1:7420", own.CertFile},
		"the default":    {"agent: {state: " + state + ", aggregator: '127.0.0.1:7420'}", "127.0.0.1:7420", own.CertFile},
		"certificates":   {"agent: {state: " + state + ", tls: {cert_file: /a, key_file: /b, ca_file: /c}}", "center.example.org:7420", "/a"},
		"a server name":  {"agent: {state: " + state + ", tls: {server_name: center}}", "center.example.org:7420", own.CertFile},
		"another folder": {"agent: {state: " + t.TempDir() + "}", "127.0.0.1:7420", ""},
	} {
		cfg := DefaultConfig()
		f, err := config.Parse("agent.yaml", []byte(c.text+"\n"), nil, config.Section{Name: "agent", Into: &cfg})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Aggregator != c.aggregator || cfg.TLS.CertFile != c.cert {
			t.Errorf("with %s: aggregator %s, certificate %s, want %s, %s", name, cfg.Aggregator, cfg.TLS.CertFile, c.aggregator, c.cert)
		}
		var dump strings.Builder
		if err := f.Dump(&dump); err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Contains(dump.String(), own.CertFile+`" # chosen: this host is enrolled`), c.cert == own.CertFile; got != want {
			t.Errorf("with %s the dump says that the host is enrolled = %v, want %v", name, got, want)
		}
	}
	// A flag that names another state directory comes after the file.
	cfg := DefaultConfig()
	f, err := config.Parse("agent.yaml", []byte("agent: {state: "+state+"}\n"), nil, config.Section{Name: "agent", Into: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Set("agent.state", t.TempDir(), "flag --state"); err != nil {
		t.Fatal(err)
	}
	if cfg.Aggregator != "127.0.0.1:7420" || !cfg.TLS.IsZero() {
		t.Errorf("after another state directory was named: %s, %+v, want the defaults", cfg.Aggregator, cfg.TLS)
	}
}
