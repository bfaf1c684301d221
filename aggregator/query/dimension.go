package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/config"
	"github.com/httpctl/httpctl/pkg/stat"
	httpctlv1 "github.com/httpctl/httpctl/proto/httpctl/v1"
)

// builtinOrder is the order of the built-in top lists; others follow by name.
var builtinOrder = []string{"section", "domain", "user_agent", "method", "status", "volume", "server", "client_ip", "routes"}

// drillDown is the table that has every column by which the dashboard is
// filtered, and may stand in for a dimension's own.
const drillDown = "routes"

// schemaTTL is how long found schemas are used: a new statistic shows within
// it, and a dashboard that redraws every 2 s looks rarely.
const schemaTTL = 10 * time.Second

// dimension is a view of a table.
type dimension struct {
	name   string
	schema bucket.Schema
	view   bucket.View
	hits   int   // measure
	show   []int // measures
}

// newDimension returns false for a view that its schema cannot serve.
func newDimension(name string, schema bucket.Schema, view bucket.View) (d dimension, ok bool) {
	d = dimension{name: name, schema: schema, view: view, hits: schema.Measure(view.Hits)}
	if d.hits < 0 {
		return d, false
	}
	for _, k := range view.By {
		if schema.Key(k) < 0 {
			return d, false
		}
	}
	for _, m := range view.Show {
		if i := schema.Measure(m); i >= 0 && i != d.hits {
			d.show = append(d.show, i)
		}
	}
	return d, true
}

func (d *dimension) message() *httpctlv1.Dimension {
	out := &httpctlv1.Dimension{Name: sendable(d.name), Title: sendable(cmp.Or(d.view.Title, d.name)), Keys: sendables(d.view.By), Filters: sendables(d.filters())}
	kinds := [...]httpctlv1.ColumnKind{
		bucket.Sum:     httpctlv1.ColumnKind_COLUMN_KIND_SUM,
		bucket.Max:     httpctlv1.ColumnKind_COLUMN_KIND_MAX,
		bucket.Latency: httpctlv1.ColumnKind_COLUMN_KIND_LATENCY,
	}
	for _, i := range append([]int{d.hits}, d.show...) {
		m := d.schema.Measures[i]
		out.Columns = append(out.Columns, &httpctlv1.Column{Name: sendable(m.Name), Unit: sendable(m.Unit), Kind: kinds[min(m.Kind, bucket.Latency)]})
	}
	// What a list counts is its hits, whatever the table calls it; unless it
	// ranks by something else and shows its hits beside that.
	if !slices.Contains(d.view.Show, stat.MeasureHits) {
		out.Columns[0].Name = stat.MeasureHits
	}
	return out
}

// filters lists the columns that the dimension can be filtered by.
func (d *dimension) filters() []string {
	out := slices.Clone(d.schema.Keys)
	if d.requestsOnly() {
		out = slices.DeleteFunc(out, func(k string) bool { return k == "status" })
	}
	return out
}

// refusal says that the dimension has no such column to filter by, which there are, and which of them may be meant.
func (d *dimension) refusal(column string) string {
	takes := append([]string{"host"}, d.filters()...)
	text := fmt.Sprintf("top list %s cannot be filtered by %s; it takes: %s", d.name, column, strings.Join(takes, ", "))
	return text + meant(column, takes)
}

// meant ends a message about a name that is not there: with the nearest one that is.
func meant(name string, there []string) string {
	if near := config.Nearest(name, there); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// requestsOnly: the table totals counts a request before its status is known,
// so a status says nothing about requests.
func (d *dimension) requestsOnly() bool {
	return d.schema.Name == "totals" && d.view.Hits == "requests"
}

// refuses returns the first column of the selection that the dimension has not.
func (d *dimension) refuses(sel *selection) string {
	have := d.filters()
	for _, c := range sel.where {
		if !slices.Contains(have, c.Column) {
			return c.Column
		}
	}
	return ""
}

// dimensions finds the top lists that the stored and provisional buckets offer,
// in order of display.
func (s *Service) dimensions(ctx context.Context) ([]dimension, error) {
	schemas, err := s.knownSchemas(ctx)
	if err != nil {
		return nil, err
	}
	return offered(schemas), nil
}

// offered are the top lists of the tables of these schemas, in order of display.
func offered(schemas []bucket.Schema) []dimension {
	var out []dimension
	for _, schema := range schemas {
		for _, view := range schema.Views {
			name := view.Name
			if slices.ContainsFunc(out, func(d dimension) bool { return d.name == name }) {
				name = schema.Name + "_" + view.Name // two tables offer a view of one name
			}
			if d, ok := newDimension(name, schema, view); ok {
				out = append(out, d)
			}
		}
	}
	rank := func(d dimension) int {
		if i := slices.Index(builtinOrder, d.name); i >= 0 {
			return i
		}
		return len(builtinOrder)
	}
	slices.SortStableFunc(out, func(x, y dimension) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.name, y.name))
	})
	return out
}

// Refresh looks again which statistics there are, if somebody has asked since it did last: who calls it more often than every schemaTTL spares
// questions that work. It takes no slot.
func (s *Service) Refresh(ctx context.Context) error {
	s.mu.Lock()
	asked := s.schemaAsked
	s.schemaAsked = false
	s.mu.Unlock()
	if !asked {
		return nil
	}
	_, err := s.readSchemas(ctx)
	return err
}

// readSchemas reads the schemas of the tables that are stored.
func (s *Service) readSchemas(ctx context.Context) ([]bucket.Schema, error) {
	now := s.Now()
	schemas, err := s.Store.Schemas(ctx, 0, now.Add(maxSkew).UnixNano())
	if err != nil {
		return nil, failed("read schemas", err)
	}
	s.mu.Lock()
	s.schemas, s.schemaAt = schemas, now
	s.mu.Unlock()
	return schemas, nil
}

// knownSchemas returns the schemas of the tables that there are, sorted by
// name, the built-in statistics' first.
func (s *Service) knownSchemas(ctx context.Context) ([]bucket.Schema, error) {
	s.mu.Lock()
	schemas, at := s.schemas, s.schemaAt
	s.schemaAsked = true
	s.mu.Unlock()
	if age := s.Now().Sub(at); schemas == nil || age < 0 || age >= schemaTTL {
		var err error
		if schemas, err = s.readSchemas(ctx); err != nil {
			return nil, err
		}
	}
	found := map[string]bucket.Schema{}
	for _, schema := range schemas {
		found[schema.Name] = schema
	}
	for _, p := range s.Live.Provisional() {
		for _, t := range p.Tables {
			if _, ok := found[t.Schema.Name]; !ok { // of what is stored, hosts have decided
				found[t.Schema.Name] = t.Schema
			}
		}
	}
	out := make([]bucket.Schema, 0, len(found))
	for _, schema := range found {
		out = append(out, schema)
	}
	own := func(x bucket.Schema) int {
		if slices.Contains(stat.Builtin, x.Name) { // whose lists have their names first
			return 0
		}
		return 1
	}
	slices.SortFunc(out, func(x, y bucket.Schema) int {
		return cmp.Or(cmp.Compare(own(x), own(y)), strings.Compare(x.Name, y.Name))
	})
	return out, nil
}

// find returns the dimension of a name.
func find(dims []dimension, name string) (*dimension, error) {
	names := make([]string, len(dims))
	for i := range dims {
		if dims[i].name == name {
			return &dims[i], nil
		}
		names[i] = dims[i].name
	}
	if len(names) == 0 {
		return nil, invalid("no top list %q: there are none before the first bucket has arrived", name)
	}
	return nil, invalid("no top list %q; there are: %s%s", name, strings.Join(names, ", "), meant(name, names))
}

// standIn returns the dimension as the drill-down table answers it, if it can.
func standIn(dims []dimension, d *dimension, sel *selection) *dimension {
	i := slices.IndexFunc(dims, func(x dimension) bool { return x.schema.Name == drillDown })
	if i < 0 || d.schema.Name == drillDown {
		return nil
	}
	schema := dims[i].schema
	view := d.view
	if schema.Measure(view.Hits) < 0 {
		if view.Hits != "requests" && view.Hits != "responses" {
			return nil
		}
		view.Hits = dims[i].view.Hits
	}
	out, ok := newDimension(d.name, schema, view)
	if !ok || out.refuses(sel) != "" {
		return nil
	}
	return &out
}

// ListDimensions implements QueryService.
func (s *Service) ListDimensions(ctx context.Context, _ *httpctlv1.ListDimensionsRequest) (*httpctlv1.ListDimensionsResponse, error) {
	dims, err := s.dimensions(ctx)
	if err != nil {
		return nil, err
	}
	out := &httpctlv1.ListDimensionsResponse{}
	for i := range dims {
		out.Dimensions = append(out.Dimensions, dims[i].message())
	}
	return out, nil
}
