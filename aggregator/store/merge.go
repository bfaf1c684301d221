package store

import (
	"cmp"
	"slices"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/sketch"
)

// MergeParts adds up parts of one plan and one piece of its time, at least one. With final, the sum takes little memory, and of a table of all hosts that is not exact
// it has as many rows as a roll-up of the fleet: those with the largest upper bounds, the others folded. It returns nil if there are
// more rows than a Collector keeps.
func MergeParts(d *Dictionary, parts []*Part, final bool) *Part {
	out := &Part{dict: d, Slice: Slice{Start: parts[0].Start, End: parts[0].End}}
	var all, each []*hostPart
	for _, p := range parts {
		if p.Buckets == 0 {
			continue
		}
		p = p.Renumbered(d)
		out.Start, out.End = p.Start, p.End
		if p.hosts != nil {
			for i := range p.hosts {
				each = append(each, &p.hosts[i])
			}
			continue
		}
		all = append(all, &hostPart{p.Slice, p.sealed})
	}
	if len(all) > 0 {
		sum := mergeHostParts(d, all)
		if out.Slice, out.sealed = sum.Slice, sum.sealed; len(out.sealed.ids) > maxSumRows {
			return nil
		}
		if final {
			out.sealed.cut(fleetRows, d.names())
			out.sealed.pack()
		}
	}
	slices.SortStableFunc(each, func(x, y *hostPart) int { return x.Host.Compare(y.Host) })
	for len(each) > 0 {
		n := 1
		for n < len(each) && each[n].Host == each[0].Host {
			n++
		}
		h := *each[0]
		if n > 1 || final { // what is packed must not be another's
			h = mergeHostParts(d, each[:n])
		}
		if h.sealed.len() > maxSumRows {
			return nil
		}
		if final {
			h.sealed.pack()
		}
		out.hosts = append(out.hosts, h)
		out.Buckets += h.Buckets
		each = each[n:]
	}
	return out
}

// mergeHostParts adds up parts of one host, or of all, in memory of its own but for sketches.
func mergeHostParts(d *Dictionary, parts []*hostPart) hostPart {
	out := hostPart{Slice: Slice{Start: parts[len(parts)-1].Start, End: parts[len(parts)-1].End, Host: parts[0].Host}}
	sums := make([]*sealed, len(parts))
	for i, p := range parts {
		out.Buckets += p.Buckets
		out.Counters.Add(&p.Counters)
		out.Hosts = mergeIDs(slices.Clip(out.Hosts), p.Hosts)
		out.Covered, out.Unobserved = append(out.Covered, p.Covered...), append(out.Unobserved, p.Unobserved...)
		sums[i] = p.sealed
	}
	out.Covered, out.Unobserved = bucket.MergeSpans(out.Covered), bucket.MergeSpans(out.Unobserved)
	if out.sealed = sums[0].copy(); len(sums) > 1 {
		out.sealed = addUp(sums, d.names().len())
	}
	return out
}

// copy returns what can be cut and packed without a change to s.
func (s *sealed) copy() *sealed {
	out := *s
	out.columns = new(columns)
	out.other = bucket.Row{}
	if s.added > 0 {
		addRow(s.schema.Measures, &out.other, &s.other)
	}
	return &out
}

// addUp adds up what lies in a dictionary of so many keys. Of several versions the newest wins, and of columns that differ the first.
func addUp(all []*sealed, keys int) *sealed {
	first, rows, skipped := (*sealed)(nil), 0, 0
	for _, p := range all {
		if p.added > 0 && (first == nil || p.schema.Version > first.schema.Version) {
			first = p
		}
	}
	var parts []*sealed
	for _, p := range all {
		skipped += p.skipped
		switch {
		case p.added == 0:
		case !p.like(first):
			skipped += p.added
		default:
			parts = append(parts, p)
			rows += len(p.ids)
		}
	}
	if first == nil {
		return &sealed{columns: new(columns), skipped: skipped}
	}
	memory := scratches.Get().(*scratch)
	memory.fit(keys)
	rows = min(rows, keys)
	u := union{sealed{schema: first.schema, out: first.out, stride: first.stride, latencies: first.latencies, columns: new(columns), skipped: skipped,
		ids: make([]uint32, 0, rows), numbers: make([]int64, 0, rows*first.stride)}, memory.place}
	for _, p := range parts {
		u.add(p)
	}
	u.addSketches(parts)
	for _, id := range u.ids {
		u.position[id] = 0
	}
	scratches.Put(memory)
	u.count()
	u.ids, u.numbers = fitted(u.ids), fitted(u.numbers)
	return &u.sealed
}

// union adds up sealed sums of one schema.
type union struct {
	sealed           // without sketches
	position []int32 // of a key's row, plus 1
}

func (u *union) row(k int) []int64 { return u.numbers[k*u.stride : (k+1)*u.stride] }

func (u *union) add(p *sealed) {
	for i, id := range p.ids {
		from := p.numbers[i*u.stride : (i+1)*u.stride]
		if k := u.position[id]; k > 0 {
			addNumbers(u.row(int(k)-1), from, u.schema.Measures)
			continue
		}
		u.ids = append(u.ids, id)
		u.numbers = append(u.numbers, from...)
		u.position[id] = int32(len(u.ids))
	}
	u.floor = add(u.floor, p.floor)
	u.added += p.added
	u.folded += p.folded
	addRow(u.schema.Measures, &u.other, &p.other)
}

// addSketches fills in the sketches of a sum of parts. Those that only one part has are that part's.
func (u *union) addSketches(parts []*sealed) {
	if u.latencies == 0 {
		return
	}
	u.sketches = make([]*sketch.Latency, len(u.ids)*u.latencies)
	own := make([]bool, len(u.sketches))
	for _, p := range parts {
		for i, id := range p.ids {
			at := (int(u.position[id]) - 1) * u.latencies
			for l := range u.latencies {
				k := p.sketch(i, l)
				switch has := u.sketches[at+l]; {
				case k == nil:
				case has == nil:
					u.sketches[at+l] = k
				case !own[at+l]:
					u.sketches[at+l], own[at+l] = has.Clone(), true
					fallthrough
				default:
					u.sketches[at+l].Merge(k)
				}
			}
		}
	}
	for k, s := range u.sketches {
		if s == nil {
			continue
		}
		u.held += sketchBytes(s)
		at := k/u.latencies*u.stride + len(u.schema.Measures) + 1 + k%u.latencies*latencyNumbers
		copy(u.numbers[at:], []int64{int64(s.Count), int64(s.Sum), s.Min, s.Max})
	}
}

// cut folds rows until at most that many are left, unless the table is exact, as bucket.Table.Cut does. keys are those of the dictionary.
func (s *sealed) cut(most int, keys names) {
	if len(s.ids) <= most || s.schema.Exact {
		return
	}
	measures := len(s.schema.Measures)
	errs, uppers := make([]int64, len(s.ids)), make([]int64, len(s.ids))
	for i := range s.ids {
		n := s.numbers[i*s.stride:]
		errs[i] = max(0, add(n[measures], s.floor))
		uppers[i] = add(n[0], errs[i])
	}
	kept := firstOf(len(s.ids), most, func(x, y int) int {
		if c := cmp.Compare(uppers[y], uppers[x]); c != 0 {
			return c
		}
		return compareKeys(keys.at(s.ids[x]), keys.at(s.ids[y]))
	})
	keep := make([]bool, len(s.ids))
	for _, i := range kept {
		keep[i] = true
	}
	old := *s
	s.columns = new(columns)
	s.ids, s.numbers, s.sketches, s.held = make([]uint32, 0, most), make([]int64, 0, most*s.stride), nil, 0
	for i, id := range old.ids {
		n := old.numbers[i*s.stride : (i+1)*s.stride]
		latencies := make([]*sketch.Latency, s.latencies)
		for l := range latencies {
			latencies[l] = old.sketch(i, l)
		}
		if !keep[i] {
			s.floor = max(s.floor, uppers[i])
			s.folded++
			addRow(s.schema.Measures, &s.other, &bucket.Row{Values: n[:measures], Latency: latencies})
			continue
		}
		s.ids, s.numbers, s.sketches = append(s.ids, id), append(s.numbers, n...), append(s.sketches, latencies...)
		for _, l := range latencies {
			s.held += sketchBytes(l)
		}
		s.numbers[(len(s.ids)-1)*s.stride+measures] = errs[i]
	}
	for k := range s.ids { // relative to the floor, which is known now
		s.numbers[k*s.stride+measures] -= s.floor
	}
	s.count()
}

// firstOf returns the n first of the numbers below count in an order, sorted.
func firstOf(count, n int, order func(x, y int) int) []int {
	var first []int
	full := false // the first n of first are the first of all so far, sorted
	for i := range count {
		if full && order(first[n-1], i) < 0 {
			continue
		}
		if first = append(first, i); len(first) == 2*n {
			slices.SortFunc(first, order)
			first, full = first[:n], true
		}
	}
	slices.SortFunc(first, order)
	return first[:min(n, len(first))]
}
