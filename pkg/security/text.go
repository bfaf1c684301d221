package security

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// CleanText makes a string that came from the network safe for a terminal, a
// log or a page of text: what would move the cursor, hide, reorder or imitate other text
// is shown as an escape instead. Escaped are C0 and C1 controls with ESC and DEL (\x1b, \u009b),
// line and paragraph separators, bidirectional overrides and isolates (\u202e), zero-width and other
// format characters, invisible fillers and variation selectors, spaces other than
// U+0020, private-use and unassigned characters, and bytes that are not UTF-8 (\xff).
//
// It is for display: a backslash is left as it is, so CleanText is idempotent but not
// reversible. A string that needs nothing is returned as it is.
func CleanText(s string) string {
	i := firstUnsafe(s)
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:i])
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			escape(&b, 'x', rune(s[i]), 2)
		case safe(r):
			b.WriteString(s[i : i+n])
		case r < utf8.RuneSelf:
			escape(&b, 'x', r, 2)
		case r <= 0xffff:
			escape(&b, 'u', r, 4)
		default:
			escape(&b, 'U', r, 8)
		}
		i += n
	}
	return b.String()
}

// firstUnsafe returns the offset of the first thing to escape, or len(s).
func firstUnsafe(s string) int {
	for i := 0; i < len(s); {
		if c := s[i]; c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || !safe(r) {
			return i
		}
		i += n
	}
	return len(s)
}

func safe(r rune) bool {
	// Letters, marks, numbers, punctuation, symbols and U+0020; of these, some are invisible.
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func escape(b *strings.Builder, kind byte, r rune, digits int) {
	b.WriteByte('\\')
	b.WriteByte(kind)
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b.WriteByte("0123456789abcdef"[r>>shift&15])
	}
}
