package app

import (
	"strings"
	"testing"
)

// TestHostName: a name that the aggregator would refuse is refused here, where its owner reads why.
func TestHostName(t *testing.T) {
	for name, want := range map[string]bool{"web-1.example.org": true, "\u65b0\u7ad9": true, strings.Repeat("x", 255): true,
		"": false, strings.Repeat("x", 256): false, "web\xff1": false} {
		c := DefaultConfig()
		c.HostName, c.State, c.Capture.Interfaces = name, t.TempDir(), []string{"lo"}
		err := c.Validate()
		if refused := err != nil && strings.Contains(err.Error(), "host_name"); refused == want {
			t.Errorf("Validate() with the host name %q = %v, want accepted: %v", name, err, want)
		}
	}
}
