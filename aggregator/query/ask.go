package query

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// span is a range of which both ends are set. until is what the reader is
// told; to, where the end is open, lies further on.
type span struct{ from, to, until int64 }

func (r span) message() *httpctlv1.Range {
	return &httpctlv1.Range{SinceUnixNs: r.from, UntilUnixNs: r.until}
}

// rangeOf fills in the open ends of a range: the last back until now. One of an hour or more begins
// with the minute, of more than two days with the hour, of more than 60 days with the day (UTC): at most a 48th is added.
func (s *Service) rangeOf(r *httpctlv1.Range, back time.Duration) (span, error) {
	now := s.Now().UnixNano()
	out := span{from: r.GetSinceUnixNs(), to: r.GetUntilUnixNs()}
	if out.from < 0 || out.to < 0 {
		return out, invalid("range: %d to %d: times are nanoseconds since 1970 and not negative", out.from, out.to)
	}
	out.until = out.to
	if out.to == 0 {
		out.until = now
		out.to = now + int64(maxSkew)
	}
	if out.from == 0 {
		out.from = max(0, min(out.until, now)-int64(back))
	}
	// Roll-ups answer whole steps: a long range begins with one.
	if out.from < out.until {
		switch length := time.Duration(out.until - out.from); {
		case length > 60*day:
			out.from = store.Day.Floor(out.from)
		case length > 2*day:
			out.from = store.Hour.Floor(out.from)
		case length >= time.Hour:
			out.from = store.Minute.Floor(out.from)
		}
	}
	if out.from >= out.to {
		return out, invalid("range: since %s is not before until %s", text(out.from), text(out.until))
	}
	return out, nil
}

func text(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func (s *Service) limitOf(n uint32) (int, error) {
	if n > maxLimit {
		return 0, invalid("limit %d: the most is %d", n, maxLimit)
	}
	if n == 0 {
		return max(1, s.Settings().MaxTopHits), nil
	}
	return int(n), nil
}

// selection is what the filters keep: hosts (nil: all), and rows by columns.
type selection struct {
	hosts []bucket.ID
	where []bucket.Condition
}

// fleetWide reports whether all hosts are asked. Then what a mirror counts,
// too, must be left out.
func (sel *selection) fleetWide() bool { return sel.hosts == nil }

func (sel *selection) has(column string) bool {
	return slices.ContainsFunc(sel.where, func(c bucket.Condition) bool { return c.Column == column })
}

func (s *Service) selectionOf(ctx context.Context, filters []*httpctlv1.Filter) (sel selection, err error) {
	if len(filters) > maxFilters {
		return sel, invalid("%d filters: the most is %d", len(filters), maxFilters)
	}
	for _, f := range filters {
		column, values := f.GetColumn(), f.GetValues()
		if column == "" || len(values) == 0 || len(values) > maxValues {
			return sel, invalid("filter %q with %d values: want a column and 1 to %d values", column, len(values), maxValues)
		}
		for _, v := range values {
			if v == "" || len(v) > maxValueLength {
				return sel, invalid("filter %q: a value of %d bytes, want 1 to %d", column, len(v), maxValueLength)
			}
		}
		if column != "host" {
			sel.where = append(sel.where, bucket.Condition{Column: column, Values: values})
			continue
		}
		ids, err := s.hostsNamed(ctx, values)
		if err != nil {
			return sel, err
		}
		if sel.hosts != nil {
			ids = slices.DeleteFunc(ids, func(id bucket.ID) bool { return !slices.Contains(sel.hosts, id) })
		}
		if len(ids) == 0 {
			return sel, invalid("no host satisfies every host filter")
		}
		sel.hosts = ids
	}
	return sel, nil
}

// hostsNamed finds hosts by name or id; several may share a name.
func (s *Service) hostsNamed(ctx context.Context, values []string) ([]bucket.ID, error) {
	known, err := s.Store.Hosts(ctx)
	if err != nil {
		return nil, failed("read hosts", err)
	}
	for _, a := range s.Live.Agents() {
		known = append(known, store.Host{ID: a.Host, Name: a.Name})
	}
	past, err := s.Store.PastHosts(ctx)
	if err != nil {
		return nil, failed("read past hosts", err)
	}
	present := len(known)
	known = append(known, past...)
	var ids []bucket.ID
	for _, v := range values {
		found := false
		for i := range known {
			if strings.EqualFold(known[i].Name, v) || strings.EqualFold(known[i].ID.String(), v) {
				ids = append(ids, known[i].ID)
				found = true
			}
		}
		if !found {
			return nil, invalid("no host %q; there are: %s%s", v, hostNames(known[:present]), meant(v, namesOf(known[:present])))
		}
	}
	slices.SortFunc(ids, bucket.ID.Compare)
	return slices.Compact(ids), nil
}

// hostNames lists names for an error message.
func hostNames(hosts []store.Host) string {
	const most = 50
	names := namesOf(hosts)
	switch {
	case len(names) == 0:
		return "none yet"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// namesOf are the names of hosts, each once, by the alphabet.
func namesOf(hosts []store.Host) []string {
	names := make([]string, len(hosts))
	for i := range hosts {
		names[i] = cmp.Or(hosts[i].Name, hosts[i].ID.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func newestFirst(alerts []Alert) []Alert {
	alerts = slices.Clone(alerts)
	slices.SortStableFunc(alerts, func(x, y Alert) int { return cmp.Compare(y.Start, x.Start) })
	return alerts
}
