// Package match says which exchanges a person asks for. What is asked for comes from a command line, over the
// aggregator, to the agents that compare each exchange with it: all three check it here.
package match

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/exchange"
)

// Column keeps what has one of the values.
type Column struct {
	// Name is one of [Columns].
	Name   string
	Values []string
}

// Columns are those that there are, in the order in which they are compared.
var Columns = []string{"status", "method", "role", "domain", "section", "user_agent"}

// Bounds of a filter: it is compared with every exchange of a host.
const (
	MaxValues = 64   // of a column
	MaxValue  = 1024 // bytes of a value
)

// Filter tells which exchanges match. The zero value matches all. It does not change once it is made, and is
// safe for concurrent use.
type Filter struct {
	statuses                   []statuses
	roles                      [exchange.Client + 1]bool
	anyRole                    bool
	methods, domains, sections []string
	agents                     []pattern
	slower                     int64
}

// statuses are the codes from least to most; 0 is no response.
type statuses struct{ least, most int }

// New returns the filter of columns, each at most once, and of a response time (time to first byte) of at least slowerThan; 0 is any, or none. An
// error says what is wrong, for who asked.
func New(columns []Column, slowerThan time.Duration) (*Filter, error) {
	f := &Filter{anyRole: true, slower: int64(slowerThan)}
	if slowerThan < 0 {
		return nil, fmt.Errorf("a response time of %s: want one of 0 or more", slowerThan)
	}
	var seen []string
	for _, c := range columns {
		if !slices.Contains(Columns, c.Name) {
			return nil, fmt.Errorf("live exchanges have no filter %q; they have: host, %s", c.Name, strings.Join(Columns, ", "))
		}
		if slices.Contains(seen, c.Name) {
			return nil, fmt.Errorf("the filter %s is there twice", c.Name)
		}
		if seen = append(seen, c.Name); len(c.Values) == 0 || len(c.Values) > MaxValues {
			return nil, fmt.Errorf("the filter %s has %d values; want 1 to %d", c.Name, len(c.Values), MaxValues)
		}
		for _, v := range c.Values {
			if v == "" || len(v) > MaxValue {
				return nil, fmt.Errorf("a value of the filter %s has %d bytes; want 1 to %d", c.Name, len(v), MaxValue)
			}
			if err := f.add(c.Name, v); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (f *Filter) add(column, value string) error {
	switch column {
	case "status":
		s, ok := parseStatus(value)
		if !ok {
			return fmt.Errorf("status %q: want a code such as 503, a class such as 5xx, or - for none", value)
		}
		f.statuses = append(f.statuses, s)
	case "role":
		for r := exchange.Transit; r <= exchange.Client; r++ {
			if r.String() == value {
				f.roles[r], f.anyRole = true, false
				return nil
			}
		}
		return fmt.Errorf("role %q: want server, client or transit", value)
	case "method":
		f.methods = append(f.methods, value)
	case "domain":
		f.domains = append(f.domains, value)
	case "section":
		f.sections = append(f.sections, value)
	case "user_agent":
		f.agents = append(f.agents, newPattern(value))
	}
	return nil
}

func parseStatus(text string) (statuses, bool) {
	if text == "-" {
		return statuses{}, true
	}
	if len(text) != 3 || text[0] < '1' || text[0] > '9' {
		return statuses{}, false
	}
	if strings.EqualFold(text[1:], "xx") {
		class := int(text[0]-'0') * 100
		return statuses{class, class + 99}, true
	}
	code, err := strconv.Atoi(text)
	return statuses{code, code}, err == nil && text[1] != '+' && text[1] != '-'
}

// Text says in words what is asked for, such as "status=5xx domain=example.org slower-than=500ms"; "all" if nothing is.
func Text(columns []Column, slowerThan time.Duration) string {
	var parts []string
	for _, c := range columns {
		parts = append(parts, c.Name+"="+strings.Join(c.Values, ","))
	}
	if slowerThan > 0 {
		parts = append(parts, "slower-than="+slowerThan.String())
	}
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, " ")
}

// NeedsUserAgent reports whether the filter looks at user agents.
func (f *Filter) NeedsUserAgent() bool { return len(f.agents) > 0 }

// Match reports whether an exchange that has ended matches. It allocates nothing.
func (f *Filter) Match(x *exchange.Exchange) bool {
	if f.statuses != nil && !slices.ContainsFunc(f.statuses, func(s statuses) bool { return x.Status >= s.least && x.Status <= s.most }) {
		return false
	}
	if f.slower > 0 {
		if ttfb, _, ok := x.TTFB(); !ok || ttfb < f.slower {
			return false
		}
	}
	return (f.methods == nil || slices.Contains(f.methods, x.Method) || slices.Contains(f.methods, exchange.MethodAttribute(x.Method)) && x.HasRequest) &&
		(f.anyRole || f.roles[x.Role]) &&
		(f.domains == nil || slices.Contains(f.domains, x.Domain)) &&
		(f.sections == nil || slices.Contains(f.sections, x.Section)) &&
		(f.agents == nil || slices.ContainsFunc(f.agents, func(p pattern) bool { return p.in(x.UserAgent) }))
}

// pattern is the parts, in lower case, that have to follow each other in a text.
type pattern []string

func newPattern(text string) (p pattern) {
	for part := range strings.SplitSeq(text, "*") {
		if part != "" {
			p = append(p, lower(part))
		}
	}
	return p
}

// lower is strings.ToLower of ASCII: what is not, is compared as it is.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// in reports whether the parts are in a text, which has at most max_str_length bytes. No part is looked for again
// once it was found, so it takes at most as many steps as text and pattern have bytes, multiplied.
func (p pattern) in(text string) bool {
	if text == "" {
		return false
	}
	for _, part := range p {
		i := index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// index is strings.Index where part is in lower case and text in any.
func index(text, part string) int {
	for i := 0; i+len(part) <= len(text); i++ {
		k := 0
		for k < len(part) && lowerByte(text[i+k]) == part[k] {
			k++
		}
		if k == len(part) {
			return i
		}
	}
	return -1
}
