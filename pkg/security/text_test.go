package security

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestCleanText(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := CleanText(in); got != want {
			t.Errorf("CleanText(%q) = %q, want %q", in, got, want)
		}
	}
	f("", "")
	f("GET /a b", "GET /a b")
	f("prüfung 测试 ☃ 👍", "prüfung 测试 ☃ 👍")
	f(`C:\x1b`, `C:\x1b`)
	f("\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`)
	f("\x1b]0;title\a", `\x1b]0;title\x07`)
	f("a\tb\r\nc\x00\x7f", `a\x09b\x0d\x0ac\x00\x7f`)
	f("\u009b31m", `\u009b31m`)
	f("a\u202etxt.exe\u2066x", `a\u202etxt.exe\u2066x`)
	f("pay\u200bpal\ufeff\u00ad", `pay\u200bpal\ufeff\u00ad`)
	f("a\u2028b\u2029", `a\u2028b\u2029`)
	f("a\u00a0b\u3000", `a\u00a0b\u3000`)
	f("\u115f\u3164\ufe0f\ue000", `\u115f\u3164\ufe0f\ue000`)
	f("\U000e0041\U000e0100", `\U000e0041\U000e0100`)
	f("ok\xff\xc3(", `ok\xff\xc3(`)
	f("\xed\xa0\x80", `\xed\xa0\x80`) // a surrogate in UTF-8
	f("\ufffd", "\ufffd")             // the replacement character itself is text
}

func TestCleanTextDoesNotCopyCleanStrings(t *testing.T) {
	s := "Mozilla/5.0 (X11; Linux x86_64) ü"
	if n := testing.AllocsPerRun(100, func() { CleanText(s) }); n != 0 {
		t.Errorf("CleanText of a clean string allocates %v times, want 0", n)
	}
}

func FuzzCleanText(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[2J", "\u202eabc", "\xff\xfe", "a\u0301", "\U0010ffff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := CleanText(in)
		if !utf8.ValidString(got) {
			t.Fatalf("CleanText(%q) = %q, which is not UTF-8", in, got)
		}
		for _, r := range got {
			if r != ' ' && !unicode.IsGraphic(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) {
				t.Fatalf("CleanText(%q) = %q holds %U", in, got, r)
			}
		}
		if again := CleanText(got); again != got {
			t.Fatalf("CleanText is not idempotent: %q, then %q", got, again)
		}
		if len(got) > 4*len(in) {
			t.Fatalf("CleanText(%d bytes) = %d bytes", len(in), len(got))
		}
	})
}
