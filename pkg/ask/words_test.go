package ask

import (
	"slices"
	"testing"
	"time"
)

// TestMoment: the times that a question may say, in a time zone.
func TestMoment(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	now := time.Date(2026, 3, 1, 0, 30, 0, 0, zone) // in UTC it is the day before
	for text, want := range map[string]string{
		"90m": "2026-02-28T23:00:00", "2d": "2026-02-27T00:30:00", "now": "2026-03-01T00:30:00", "Today": "2026-03-01T00:00:00", "yesterday": "2026-02-28T00:00:00",
		"2026-02-01": "2026-02-01T00:00:00", "2026-02-01T10:00": "2026-02-01T10:00:00", "2026-02-01 10:00": "2026-02-01T10:00:00", "2026-02-01 10:00:05": "2026-02-01T10:00:05",
		"2026-02-01T10:00:05": "2026-02-01T10:00:05", "2026-02-01T10:00:05Z": "2026-02-01T12:00:05", "00:10": "2026-03-01T00:10:00", "00:10:05": "2026-03-01T00:10:05",
	} {
		got, err := Moment("since", text, now, zone)
		if err != nil || got.In(zone).Format("2006-01-02T15:04:05") != want {
			t.Errorf("Moment(%s) = %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"-5m", "2026-02-30", "25:00", "last week", "2026-3-1"} {
		if got, err := Moment("since", text, now, zone); err == nil {
			t.Errorf("Moment(%s) = %s, want an error", text, got)
		}
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string][]string{"a": {"a"}, "a,b": {"a", "b"}, `"a,b",c`: {"a,b", "c"}, "<x>": {"<x>"}} {
		if got, err := Values("host", text); err != nil || !slices.Equal(got, want) {
			t.Errorf("Values(%s) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", `"`, "a\"b", "a\nb\""} {
		if got, err := Values("host", text); err == nil {
			t.Errorf("Values(%q) = %q, want an error", text, got)
		}
	}
}

func TestFilters(t *testing.T) {
	var q Question
	given := map[string][]string{"domain": {"Shop.example.org"}, "status": {"5XX", "503"}, "role": {"Server"}}
	err := q.SetFilters(func(name string) []string { return given[name] }, []string{"user_agent=a=b", "domain=x", "user_agent=c"})
	want := []Filter{{"domain", []string{"shop.example.org", "x"}}, {"status", []string{"5xx", "503"}}, {"role", []string{"server"}}, {"user_agent", []string{"a=b", "c"}}}
	if err != nil || !slices.EqualFunc(q.Filters, want, func(a, b Filter) bool { return a.Column == b.Column && slices.Equal(a.Values, b.Values) }) {
		t.Errorf("SetFilters = %v, %v, want %v", q.Filters, err, want)
	}
	if given["domain"][0] != "Shop.example.org" {
		t.Error("SetFilters changed what it was given")
	}
	for word, value := range map[string]string{"status": "600x", "role": "router", "host": ""} {
		err := new(Question).SetFilters(func(name string) []string {
			if name == word {
				return []string{value}
			}
			return nil
		}, nil)
		if f, ok := err.(*Fault); !ok || f.Where != word {
			t.Errorf("%s=%q: %v, want a fault of %s", word, value, err, word)
		}
	}
	for _, other := range []string{"x", "=x", "x="} {
		if err := new(Question).SetFilters(func(string) []string { return nil }, []string{other}); err == nil {
			t.Errorf("filter=%s: want an error", other)
		}
	}
}
