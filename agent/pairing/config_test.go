package pairing

import (
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/httpctl/httpctl/pkg/config"
)

// TestConfigKeys: the parsers' settings stand beside pairing's own, and what a
// file leaves out keeps its default.
func TestConfigKeys(t *testing.T) {
	file := struct {
		HTTP Config `yaml:"http"`
	}{DefaultConfig()}
	in := "http:\n  max_pipelined: 5\n  max_header_bytes: 32768\n  sniff_starts: 7\n"
	if err := yaml.UnmarshalWithOptions([]byte(in), &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.MaxPipelined, want.MaxHeaderBytes, want.SniffStarts = 5, 32*config.KiB, 7
	if file.HTTP != want {
		t.Errorf("decoded %+v, want %+v", file.HTTP, want)
	}
}
