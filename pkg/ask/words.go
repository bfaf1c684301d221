package ask

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Fault says that a question cannot be put as it was: which of its words is wrong, and what to say instead.
type Fault struct {
	// Where names the word, as the command line's flag without dashes; "" if it is none of them alone. The words
	// list and key are arguments there, and no flags.
	Where string
	// Value is what the word was given; "" if that does not matter.
	Value string
	// What is wrong, if it is more than that Value is not one of those that Hint names. Flags have their dashes in it.
	What string
	// Hint says what to do; "" if that is plain.
	Hint string
}

// Error says it in the words of the command line.
func (f *Fault) Error() string {
	text := strings.Join(slices.DeleteFunc([]string{f.What, f.Hint}, func(s string) bool { return s == "" }), "; ")
	if f.Where == "" || f.Where == wordList || f.Where == wordKey {
		return text
	}
	head := "--" + f.Where
	if f.Value != "" {
		head += " " + f.Value
	}
	return head + ": " + text
}

const (
	wordList = "list"
	wordKey  = "key"
)

// FilterNames are the filters that have a word of their own, in the order in which they are named.
var FilterNames = []string{"host", "domain", "section", "method", "status", "role"}

// Roles are the values of the filter role.
var Roles = []string{"server", "client", "transit"}

// Steps are what the word step takes, and the steps of a series that they mean.
var Steps = []struct{ Text, Step string }{{"finest", "interval"}, {"1m", "minute"}, {"10m", "ten_minutes"}, {"1h", "hour"}, {"1d", "day"}, {"1w", "week"}, {"1mo", "month"}}

// StepTexts are the texts of Steps.
func StepTexts() (out []string) {
	for _, s := range Steps {
		out = append(out, s.Text)
	}
	return out
}

// Step reads the word step: one of StepTexts, or its name; "" stays so.
func Step(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	for _, s := range Steps {
		if t := strings.ToLower(text); t == s.Text || t == s.Step {
			return s.Step, nil
		}
	}
	return "", &Fault{Where: "step", Value: text, Hint: "want one of " + strings.Join(StepTexts(), ", ")}
}

// Moment reads a time: how long before now, today or yesterday, which is when the day begins, or a time, RFC 3339 or as
// much of it as is needed, in a time zone. where is the word that has it. The zero time is that of "".
func Moment(where, text string, now time.Time, location *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	year, month, day := now.In(location).Date()
	switch strings.ToLower(text) {
	case "now":
		return now, nil
	case "today":
		return time.Date(year, month, day, 0, 0, 0, 0, location), nil
	case "yesterday":
		return time.Date(year, month, day-1, 0, 0, 0, 0, location), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, location); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, location); err == nil {
			return time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), 0, location), nil
		}
	}
	return time.Time{}, &Fault{Where: where, Value: text,
		Hint: "want how long ago, such as 90m, 24h or 2d, or today, yesterday, or a time such as " + now.In(location).Format("2006-01-02T15:04")}
}

// SetRange reads the words since and until.
func (q *Question) SetRange(since, until string, now time.Time, location *time.Location) (err error) {
	if q.Since, err = Moment("since", since, now, location); err != nil {
		return err
	}
	if q.Until, err = Moment("until", until, now, location); err != nil {
		return err
	}
	if !q.Since.IsZero() && !q.Since.Before(now) {
		return &Fault{Where: "since", Value: since, What: "that is not in the past"}
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return &Fault{Where: "since", Value: since, What: "that is not before --until " + until}
	}
	return nil
}

var statusPattern = regexp.MustCompile(`^([1-9][0-9][0-9]|[1-9]xx|-)$`)

// SetFilters reads the filters: values returns those of one of FilterNames, and others are KEY=VALUE.
// They are not changed.
func (q *Question) SetFilters(values func(name string) []string, others []string) error {
	for _, name := range FilterNames {
		given := slices.Clone(values(name))
		if len(given) == 0 {
			continue
		}
		for i, v := range given {
			switch name {
			case "status":
				if v = strings.ToLower(v); !statusPattern.MatchString(v) {
					return &Fault{Where: name, Value: v, Hint: "want a code such as 503, a class such as 5xx, or - for none"}
				}
			case "role":
				if v = strings.ToLower(v); !slices.Contains(Roles, v) {
					return &Fault{Where: name, Value: v, Hint: "want server, client or transit"}
				}
			case "domain":
				v = strings.ToLower(v)
			}
			if v == "" {
				return &Fault{Where: name, What: "an empty value"}
			}
			given[i] = v
		}
		q.Filters = append(q.Filters, Filter{Column: name, Values: given})
	}
	for _, f := range others {
		key, value, ok := strings.Cut(f, "=")
		if !ok || key == "" || value == "" {
			return &Fault{Where: "filter", Value: f, Hint: "want KEY=VALUE, such as user_agent=curl/8.14.1"}
		}
		if i := slices.IndexFunc(q.Filters, func(f Filter) bool { return f.Column == key }); i >= 0 {
			q.Filters[i].Values = append(q.Filters[i].Values, value)
			continue
		}
		q.Filters = append(q.Filters, Filter{Column: key, Values: []string{value}})
	}
	return nil
}

// Values reads a word that may hold several values, with commas between them, as the command line does: a value
// with a comma in it stands in double quotes.
func Values(where, text string) ([]string, error) {
	if text == "" {
		return nil, &Fault{Where: where, What: "an empty value"}
	}
	r := csv.NewReader(strings.NewReader(text))
	list, err := r.Read()
	if err == nil {
		if _, more := r.Read(); more != io.EOF {
			err = errors.New("it is more than one line")
		}
	}
	if err != nil {
		return nil, &Fault{Where: where, Value: text, Hint: fmt.Sprintf("want values with commas between them; one with a comma in it stands in double quotes (%v)", err)}
	}
	return list, nil
}
