package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	// Where is "file:line", "environment NAME" or "flag --name"; "" for a default.
	Where string
	// Key is the path of the key: "agent.capture.interfaces[0]".
	Key string
	// Value is the value as written, or "" when the fault is not about one.
	Value string
	// Problem says what is wrong, or Want what is allowed.
	Problem, Want string
}

// Error returns "file:line: key: value is not allowed: want ...".
func (f Fault) Error() string {
	var b strings.Builder
	if f.Where != "" {
		b.WriteString(f.Where + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	if f.Problem != "" {
		b.WriteString(f.Problem)
	} else {
		fmt.Fprintf(&b, "%s is not allowed: want %s", f.Value, f.Want)
	}
	return b.String()
}

// Faults is every fault that was found, in the order of the file's keys.
type Faults []Fault

// maxShown bounds the lines of an error: who has more faults than that will
// check the file again after mending these.
const maxShown = 100

// Error returns one line for each of the first 100 faults, and how many more there are.
func (f Faults) Error() string {
	lines := make([]string, min(len(f), maxShown))
	for i := range lines {
		lines[i] = f[i].Error()
	}
	if more := len(f) - maxShown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// Check collects the faults of a Config for its Validate method. The zero
// value is ready to use.
type Check struct{ faults Faults }

// That records a fault of key, unless ok, and returns ok.
func (c *Check) That(ok bool, key string, value any, want string) bool {
	if !ok {
		c.faults = append(c.faults, Fault{Key: key, Value: display(value), Want: want})
	}
	return ok
}

// In records what the Validate of a nested Config returned, under its key.
// Faults keep their keys; any other error, and each that errors.Join holds,
// becomes a fault of key, or of the key below it that its text begins with ("rings: ...").
func (c *Check) In(key string, err error) {
	c.faults = append(c.faults, under(key, err)...)
}

// Err returns nil if nothing was wrong, else [Faults].
func (c *Check) Err() error {
	if len(c.faults) == 0 {
		return nil
	}
	return c.faults
}

// under turns err into faults whose keys begin with key.
func under(key string, err error) Faults {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all Faults
		for _, e := range joined.Unwrap() {
			all = append(all, under(key, e)...)
		}
		return all
	}
	var faults Faults
	if !errors.As(err, &faults) {
		var f Fault
		if !errors.As(err, &f) {
			return Faults{plainFault(key, err.Error())}
		}
		faults = Faults{f}
	}
	out := make(Faults, len(faults))
	for i, f := range faults {
		f.Key = join(key, f.Key)
		out[i] = f
	}
	return out
}

// keyed is an error that says its key first, as rooms' Validate methods do.
var keyed = regexp.MustCompile(`^([a-z][a-z0-9_]*(?:\[[0-9]+\])?(?:\.[a-z][a-z0-9_]*(?:\[[0-9]+\])?)*): `)

// plainFault makes a fault under key of the text of an error. A key that the
// text begins with becomes part of the path, unless it is key itself.
func plainFault(key, text string) Fault {
	m := keyed.FindStringSubmatch(text)
	if m == nil {
		return Fault{Key: key, Problem: text}
	}
	text = text[len(m[0]):]
	if m[1] == key || strings.HasSuffix(m[1], "."+key) {
		return Fault{Key: key, Problem: text}
	}
	return Fault{Key: join(key, m[1]), Problem: text}
}

// join puts the parts of a key path together.
func join(parent, key string) string {
	switch {
	case parent == "":
		return key
	case key == "", strings.HasPrefix(key, "["):
		return parent + key
	}
	return parent + "." + key
}

// display writes a value as a file would, cut to a line.
func display(v any) string {
	var s string
	switch v := v.(type) {
	case time.Duration:
		s = FormatDuration(v)
	case string:
		s = fmt.Sprintf("%q", v)
	case fmt.Stringer:
		s = v.String()
	default:
		if r := reflect.ValueOf(v); r.Kind() == reflect.Slice && r.Len() == 0 {
			s = "an empty list"
		} else {
			s = fmt.Sprint(v)
		}
	}
	return shorten(s, 80)
}

// shorten cuts s to at most n bytes, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// Nearest returns the candidate that someone who wrote name most likely meant,
// or "" when none is near. Distances are Levenshtein's, with a bound of a
// third of the name's length and at least two.
func Nearest(name string, candidates []string) string {
	best, bound := "", max(2, len(name)/3)
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	for _, c := range candidates {
		if d := distance(name, strings.ToLower(c), bound); d <= bound && len(c) > d {
			best, bound = c, d-1
		}
	}
	return best
}

// didYouMean returns the end of a message that proposes a candidate, or "".
func didYouMean(name string, candidates []string) string {
	if c := Nearest(name, candidates); c != "" {
		return fmt.Sprintf("; did you mean %q?", c)
	}
	return ""
}

// distance is the edit distance of a and b; above bound, any number above bound.
func distance(a, b string, bound int) int {
	if len(a)-len(b) > bound || len(b)-len(a) > bound || len(a) > 256 {
		return bound + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
