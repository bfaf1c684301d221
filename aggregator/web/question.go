package web

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/view"
)

// kind says what a parameter takes.
type kind uint8

const (
	text   kind = iota // one
	number             // a whole number from 0
	flag               // true or false
	values             // several, and commas between
	texts              // several
)

// parameter is one of a question. It has the name of the command line's flag, and means the same.
type parameter struct {
	name string
	kind kind
	help string
	of   []string // the values that there are; nil is any
	need bool
}

var (
	rangeParameters = []parameter{
		{name: "since", help: "Begin of the range: how long ago (90m, 24h, 2d), today, yesterday, or a time (RFC 3339, or as much of it as is needed, in UTC)."},
		{name: "until", help: "End of the range, likewise. Without it, now."},
	}
	hostParameter    = parameter{name: "host", kind: values, help: "Only these monitored hosts, by name or id."}
	filterParameters = []parameter{
		hostParameter,
		{name: "domain", kind: values, help: "Only these domains."},
		{name: "section", kind: values, help: "Only these sections, such as example.org/cart."},
		{name: "method", kind: values, help: "Only these request methods."},
		{name: "status", kind: values, help: "Only these status codes: 503, or 5xx; - is without."},
		{name: "role", kind: values, help: "Only exchanges in which the host is: server, client or transit."},
		{name: "filter", kind: texts, help: "KEY=VALUE: only where a key of the list has a value."},
	}
	columnParameters = []parameter{
		{name: "columns", kind: values, help: "Only these columns of the rows, in this order."},
		{name: "sort-by", help: "Sort the rows by this column; -COLUMN puts the largest first."},
	}
	limitParameter = parameter{name: "limit", kind: number, help: "Rows at most, 0 is all, up to 10000. Without it, max_top_hits."}
	listParameter  = parameter{name: "list", help: "The top list, one of those that /api/v1/lists names.", need: true}
)

// maxParameters bounds the values of a question, those between commas apart; the query service bounds filters further.
const maxParameters = 256

// maxColumns bounds the columns that are chosen. No list has as many.
const maxColumns = 64

// question is what a request asks for.
type question struct {
	ask.Question
	given url.Values
	now   time.Time
}

// parse reads the parameters of a request.
func (e *endpoint) parse(r *http.Request, now time.Time) (*question, error) {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "", "want name=value&name=value, with %XX for other characters than letters and digits", "the question cannot be read")
	}
	q := &question{given: url.Values{}, now: now}
	count := 0
	for name, list := range given {
		p := e.parameter(name)
		if p == nil {
			return nil, e.unknown(name)
		}
		if len(list) > 1 && p.kind != values && p.kind != texts {
			return nil, fail(http.StatusBadRequest, name, "give it once", "%s is there %d times", name, len(list))
		}
		for _, v := range list {
			if count++; count > maxParameters {
				return nil, fail(http.StatusBadRequest, name, "", "there are more than %d values", maxParameters)
			}
			if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return nil, fail(http.StatusBadRequest, name, "", "%s is not UTF-8 text", name)
			}
			switch {
			case p.kind == values:
				parts, err := ask.Values(name, v)
				if err != nil {
					return nil, err
				}
				if count += len(parts) - 1; count > maxParameters {
					return nil, fail(http.StatusBadRequest, name, "", "there are more than %d values", maxParameters)
				}
				q.given[name] = append(q.given[name], parts...)
				continue
			case p.kind == number:
				if _, err := strconv.ParseUint(v, 10, 32); err != nil {
					return nil, fail(http.StatusBadRequest, name, "want a whole number of 0 or more", "the parameter %s cannot be %q", name, v)
				}
			case p.kind == flag && v != "true" && v != "false":
				return nil, fail(http.StatusBadRequest, name, "want true or false", "the parameter %s cannot be %q", name, v)
			}
			q.given[name] = append(q.given[name], v)
		}
	}
	if columns := q.given["columns"]; len(columns) > maxColumns || repeats(columns) {
		return nil, fail(http.StatusBadRequest, "columns", "name each once", "a column is there several times, or there are more than %d", maxColumns)
	}
	for i := range e.parameters {
		if p := &e.parameters[i]; p.need && q.one(p.name) == "" {
			return nil, fail(http.StatusBadRequest, p.name, p.help, "the parameter %s is missing", p.name)
		}
	}
	if err := q.SetRange(q.one("since"), q.one("until"), now, time.UTC); err != nil {
		return nil, err
	}
	if err := q.SetFilters(func(name string) []string { return q.given[name] }, q.given["filter"]); err != nil {
		return nil, err
	}
	if q.one("limit") != "" {
		q.Limit = ask.Rows(uint32(q.number("limit", 0)))
	}
	return q, nil
}

// repeats reports whether a name is there twice: rows would grow with each.
func repeats(names []string) bool {
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] {
			return true
		}
		seen[n] = true
	}
	return false
}

func (e *endpoint) parameter(name string) *parameter {
	if i := slices.IndexFunc(e.parameters, func(p parameter) bool { return p.name == name }); i >= 0 {
		return &e.parameters[i]
	}
	return nil
}

// unknown says that there is no such parameter, and which there are.
func (e *endpoint) unknown(name string) error {
	var names []string
	for _, p := range e.parameters {
		names = append(names, p.name)
	}
	hint := "there are: " + strings.Join(names, ", ")
	if len(names) == 0 {
		hint = "there are none"
	} else if near := config.Nearest(name, names); near != "" {
		hint = "did you mean " + near + "?"
	}
	return fail(http.StatusBadRequest, name, hint, "there is no parameter %q", name)
}

func (q *question) one(name string) string { return q.given.Get(name) }

func (q *question) is(name string) bool { return q.one(name) == "true" }

func (q *question) number(name string, absent int) int {
	n, err := strconv.ParseUint(q.one(name), 10, 32)
	if err != nil {
		return absent
	}
	return int(n)
}

// style carries the columns and the order of a list.
func (q *question) style() view.Style {
	return view.Style{Now: q.now, Columns: q.given["columns"], SortBy: q.one("sort-by")}
}
