package view

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCutPath: the sections of one domain stay apart, and no cut text is wider than it may be.
func TestCutPath(t *testing.T) {
	f := func(s string, n int, want string) {
		t.Helper()
		if got := CutPath(s, n, "…"); got != want || Width(got) > n {
			t.Errorf("CutPath(%q, %d) = %q, want %q", s, n, got, want)
		}
	}
	f("shop.example.org/cart", 21, "shop.example.org/cart")
	f("shop.example.org/cart", 16, "shop.examp…/cart")
	f("shop.example.org/checkout", 16, "shop.e…/checkout")
	f("shop.example.org/a-section-of-many-words", 18, "shop.…/a-section-…")
	f("例え.テスト/買い物", 12, "例え…/買い物")
	f("Mozilla/5.0 (X11; Linux)", 12, "Mozilla/5.0…")
	f("shop.example.org", 8, "shop.ex…")
	f("/only/a/path", 8, "/only/a…")
	f("a.example/b", 2, "a…")
	f("a.example/b", 0, "")
}

// TestWrap: what is said in several lines keeps its end as long as there is room for it.
func TestWrap(t *testing.T) {
	f := func(n, most int, want ...string) {
		t.Helper()
		if got := Wrap("buckets cannot be stored: no space left", n, most, "…"); !slices.Equal(got, want) {
			t.Errorf("in %d lines of %d columns: %q, want %q", most, n, got, want)
		}
	}
	f(0, 3, "buckets cannot be stored: no space left")
	f(40, 3, "buckets cannot be stored: no space left")
	f(20, 3, "buckets cannot be", "  stored: no space", "  left")
	f(20, 2, "buckets cannot be", "  stored: no space …")
	f(6, 1, "bucke…")
}

// TestWarningKeepsItsReason: it stands at the end of a warning, behind the name of a file.
func TestWarningKeepsItsReason(t *testing.T) {
	d := sample(Normal)
	d.Status.Warnings = []string{"buckets cannot be stored since 2026-03-04T11:00:00Z, agents keep them: commit to store /var/lib/httpctl/httpctl.db: write: no space left on device; free space on that file system"}
	text := strings.Join(Frame(d, Style{Width: 80, Height: 40}, ""), "\n")
	if !strings.Contains(text, "\nwarning   buckets cannot") || !strings.Contains(text, "free space on that file system") {
		t.Errorf("the warning is\n%s", text)
	}
}

// TestBaselineWhileLearning: nothing is learned from no request in no time.
func TestBaselineWhileLearning(t *testing.T) {
	b := &Baseline{Alert: AlertStatus{State: Learning, EstimatedBaseline: 912, LearningEnd: noon}}
	var out strings.Builder
	if err := WriteBaseline(&out, FormatTable, Style{Now: noon}, b, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"requests learned from", "covered", "hosts learned from"} {
		if i := strings.Index(out.String(), "\n"+want+" "); i < 0 || !strings.HasSuffix(strings.SplitN(out.String()[i+1:], "\n", 2)[0], " -") {
			t.Errorf("%s is not - in\n%s", want, out.String())
		}
	}
}
