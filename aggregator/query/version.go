package query

import (
	"context"
	"slices"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/stat"
)

// maxVoters bounds how many hosts of a selection are asked which version of a statistic they have.
const maxVoters = 64

// dimensionsOf finds the top lists as the hosts of a selection offer them: where hosts are chosen, a plug-in's statistic is of the version
// that most of them have, so that a host that was upgraded before the others can be looked at.
func (s *Service) dimensionsOf(ctx context.Context, rng span, sel *selection) ([]dimension, error) {
	schemas, err := s.knownSchemas(ctx)
	if err != nil {
		return nil, err
	}
	for i := range schemas {
		elected, err := s.electedAmong(ctx, schemas[i].Name, rng, sel)
		if err != nil {
			return nil, err
		}
		if elected != nil {
			schemas[i] = *elected
		}
	}
	return offered(schemas), nil
}

// versionOf is the dimension in the version that most hosts of the selection have, or d itself where that is it, has no such list, or
// not all the columns of the filters.
func (s *Service) versionOf(ctx context.Context, d *dimension, rng span, sel *selection) (*dimension, error) {
	elected, err := s.electedAmong(ctx, d.schema.Name, rng, sel)
	if err != nil || elected == nil || elected.Equal(&d.schema) {
		return d, err
	}
	if view := elected.View(d.view.Name); view != nil {
		if out, ok := newDimension(d.name, *elected, *view); ok && out.refuses(sel) == "" {
			return &out, nil
		}
	}
	return d, nil
}

// electedAmong returns the schema of a table that most hosts of a selection had at the end of a range, of equally many the older version; nil
// where all hosts are asked or none has the table, and for those of the built-in statistics, of which no other columns are stored. The
// first maxVoters hosts count.
func (s *Service) electedAmong(ctx context.Context, table string, rng span, sel *selection) (*bucket.Schema, error) {
	if sel.hosts == nil || slices.Contains(stat.Builtin, table) {
		return nil, nil
	}
	hosts, err := s.Store.Hosts(ctx)
	if err != nil {
		return nil, failed("read hosts", err)
	}
	ends := make(map[bucket.ID]int64, len(hosts))
	for i := range hosts {
		ends[hosts[i].ID] = hosts[i].LastEnd
	}
	votes := store.Votes{}
	for _, host := range sel.hosts[:min(len(sel.hosts), maxVoters)] {
		// One table of one host at a time is in memory. What it had last is read first, and is mostly all.
		for _, from := range []int64{store.Minute.Floor(min(rng.to, ends[host]) - int64(time.Minute)), rng.from} {
			answer, err := s.Store.Query(ctx, store.Plan{Table: table, From: max(rng.from, from), To: rng.to, Hosts: []bucket.ID{host}, MaxRows: 1, Numbers: true})
			if err != nil {
				return nil, failed("read schemas", err)
			}
			if len(answer.Slices) > 0 && answer.Slices[0].Table != nil {
				votes.Add(host, &answer.Slices[0].Table.Schema)
				break
			}
		}
	}
	if elected, ok := votes.Elected()[table]; ok {
		return &elected, nil
	}
	return nil, nil
}

// leavesOut reports whether buckets with another version of the table are missing in an answer.
func leavesOut(a *store.Answer) bool {
	return slices.ContainsFunc(a.Slices, func(sl store.Slice) bool { return sl.Skipped > 0 })
}
