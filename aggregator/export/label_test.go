package export

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestLabelsAreBounded: a name of control characters, each of which becomes three bytes, is as short as any.
func TestLabelsAreBounded(t *testing.T) {
	for _, name := range []string{strings.Repeat("\x01", 1024), strings.Repeat("\xff\x7f", 512), strings.Repeat("ü\n", 1000), "a"} {
		l := labelOf(name)
		if len(l) > maxLabel || l == "" || !utf8.ValidString(l) || strings.ContainsFunc(l, unicode.IsControl) {
			t.Errorf("labelOf of %d bytes like %.8q has %d: %.20q", len(name), name, len(l), l)
		}
	}
}
