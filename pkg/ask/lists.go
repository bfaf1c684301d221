package ask

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
	"github.com/httpctl/httpctl/pkg/view"
)

// List asks for one top list by its name. Before any agent has delivered, those that this program knows are empty.
func (r *Reader) List(ctx context.Context, name string, q Question) (*view.Top, error) {
	dimensions, err := r.Dimensions(ctx)
	if err != nil {
		return nil, err
	}
	if len(dimensions) == 0 {
		dimensions = builtinDimensions()
		for _, d := range dimensions {
			if d.Name == name {
				return &view.Top{Dimension: d}, nil
			}
		}
	}
	if err := KnownDimension(name, dimensions); err != nil {
		return nil, err
	}
	return r.Top(ctx, name, q)
}

// builtinDimensions returns the top lists of the built-in statistics.
func builtinDimensions() (out []view.Dimension) {
	for _, name := range stat.Builtin {
		module, err := stat.New(name)
		if err != nil {
			continue // a program may be linked without it
		}
		for _, schema := range module.Tables() {
			for i := range schema.Views {
				out = append(out, view.DimensionOf(&schema, &schema.Views[i]))
			}
		}
	}
	return out
}

// DimensionNames are the names of the lists.
func DimensionNames(list []view.Dimension) []string {
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.Name
	}
	return names
}

// KnownDimension returns a Fault with a proposal unless name is one.
func KnownDimension(name string, list []view.Dimension) error {
	names := DimensionNames(list)
	if slices.Contains(names, name) {
		return nil
	}
	f := &Fault{Where: wordList, What: fmt.Sprintf("there is no dimension %q", name)}
	if len(names) == 0 {
		f.What, f.Hint = "there is no dimension yet", "no agent has delivered statistics"
		return f
	}
	if near := config.Nearest(name, names); near != "" {
		f.Hint = fmt.Sprintf("did you mean %q?", near)
	} else {
		f.Hint = "there are: " + strings.Join(names, ", ")
	}
	return f
}

// ExplainKnown asks where a number comes from, of a list that there is.
func (r *Reader) ExplainKnown(ctx context.Context, dimension string, keys []string, q Question) (*view.Explanation, error) {
	dimensions, err := r.Dimensions(ctx)
	if err != nil {
		return nil, err
	}
	if err := KnownDimension(dimension, dimensions); err != nil {
		return nil, err
	}
	return r.Explain(ctx, dimension, keys, q)
}

// HostsChosen asks for the hosts that a filter by host keeps; there is no other filter of hosts.
func (r *Reader) HostsChosen(ctx context.Context, q Question) ([]view.Host, error) {
	hosts, err := r.Hosts(ctx, q)
	if err != nil || len(q.Filters) == 0 {
		return hosts, err
	}
	names := q.Filters[0].Values
	if err := knownHosts(names, hosts); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(hosts, func(h view.Host) bool { return !slices.ContainsFunc(names, h.Is) }), nil
}

// knownHosts returns a Fault unless each name is that of a host or its id.
func knownHosts(names []string, hosts []view.Host) error {
	for _, name := range names {
		if slices.ContainsFunc(hosts, func(h view.Host) bool { return h.Is(name) }) {
			continue
		}
		f := &Fault{Where: "host", What: fmt.Sprintf("no host %q", name)}
		if len(hosts) == 0 {
			f.Hint = "no agent has reported yet"
			return f
		}
		var there []string
		for _, h := range hosts {
			there = append(there, h.Name)
		}
		if near := config.Nearest(name, there); near != "" {
			f.Hint = fmt.Sprintf("did you mean %q?", near)
			return f
		}
		if more := len(there) - 20; more > 0 {
			there = append(there[:20:20], fmt.Sprintf("and %d more", more))
		}
		f.Hint = "there are: " + strings.Join(there, ", ")
		return f
	}
	return nil
}

// AlertsChosen asks for the alerts of a range; with active only for the one that lasts.
func (r *Reader) AlertsChosen(ctx context.Context, q Question, active bool) (*view.Alerts, error) {
	a, err := r.Alerts(ctx, q)
	if err != nil {
		return nil, err
	}
	if a.Active = active; active {
		a.Alerts = slices.DeleteFunc(a.Alerts, func(e view.Alert) bool { return e.State != view.Alerting })
	}
	return a, nil
}
