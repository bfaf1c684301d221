package view

import "testing"

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
