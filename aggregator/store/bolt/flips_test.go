package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// flipIntervals is how many intervals the file of flipped has, from minute 1 on.
const flipIntervals = 60

func flipAt(i int) int64 { return storetest.At(6 + i) }

// flippable makes a file with all that a store has: hosts, intervals in pages of their own and within those of others, roll-ups, a past
// host, state, what was purged, free pages.
func flippable(t *testing.T) []byte {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{Now: early, allocSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		appendAll(t, s, item(t, 50, i, 1), item(t, 1, i, 1))
	}
	for i := range flipIntervals {
		batch := []store.Item{item(t, 1, 6+i, int64(i)), item(t, 2, 6+i, 3)}
		if i%4 == 0 {
			for host := 3; host < 20; host++ {
				batch = append(batch, item(t, host, 6+i, int64(host)))
			}
		}
		if i%15 == 0 {
			batch = append(batch, wide(t, 30, 6+i)) // a value of several pages
		}
		appendAll(t, s, batch...)
	}
	for i := range 40 {
		if _, err := s.CompareAndSwap(ctx, fmt.Sprintf("verdict/fleet/%019d", i), 0, bytes.Repeat([]byte("x"), 50+i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Rollup(ctx, flipAt(flipIntervals)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge(ctx, flipAt(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answered is what a store answers.
type answered struct {
	parts   map[string]string // by what was asked; those of an interval begin with its start
	damaged map[int64]bool
	errs    []error
}

// ask asks everything that can be asked.
func ask(s *DB, from int) *answered {
	a := &answered{parts: map[string]string{}, damaged: map[int64]bool{}}
	query := func(name string, plan store.Plan, f func(*store.Slice)) {
		plan.From, plan.To = flipAt(from), flipAt(flipIntervals)
		answer, err := s.Query(ctx, plan)
		if err != nil {
			a.errs = append(a.errs, fmt.Errorf("%s: %w", name, err))
			return
		}
		for _, start := range answer.Damaged {
			a.damaged[start] = true
		}
		for i := range answer.Slices {
			f(&answer.Slices[i])
		}
		if len(answer.Damaged) == 0 {
			a.parts[name] += fmt.Sprint(len(answer.Slices), " slices")
		}
	}
	text := func(sl *store.Slice) string {
		out := fmt.Sprint(sl.Buckets, sl.Counters, sl.Covered, sl.Hosts)
		if sl.Table != nil {
			for _, r := range sl.Table.Rows {
				out += fmt.Sprint(" ", r.Keys, r.Values, r.Err)
				for _, l := range r.Latency {
					out += fmt.Sprint(" ", l.Count, l.Quantile(0.5))
				}
			}
		}
		return out
	}
	for _, table := range []string{"", "totals", "routes"} {
		query("steps of "+table, store.Plan{Table: table, Step: storetest.Width, PerHost: true}, func(sl *store.Slice) {
			a.parts[fmt.Sprintf("%d %s %s", sl.Start, table, sl.Host)] = text(sl)
		})
	}
	whole := ""
	query("top", store.Plan{Table: "totals", By: []string{"method"}, MaxRows: 5}, func(sl *store.Slice) { whole += text(sl) })
	query("one host", store.Plan{Table: "totals", Hosts: []bucket.ID{storetest.ID(2)}, Judged: true}, func(sl *store.Slice) { whole += text(sl) })
	query("hosts' totals", store.Plan{Table: "totals", By: []string{"mirror"}, PerHost: true, Numbers: true}, func(sl *store.Slice) { whole += sl.Host.String() + text(sl) })
	if len(a.damaged) == 0 {
		a.parts["whole"] = whole
	}
	for name, f := range map[string]func(context.Context) ([]store.Host, error){"hosts": s.Hosts, "past hosts": s.PastHosts} {
		hosts, err := f(ctx)
		if err != nil {
			a.errs = append(a.errs, fmt.Errorf("%s: %w", name, err))
		}
		a.parts[name] = fmt.Sprint(hosts)
	}
	state := ""
	if err := s.List(ctx, "", "", func(key string, value []byte, version uint64) error {
		state += fmt.Sprintln(key, string(value), version)
		return nil
	}); err != nil {
		a.errs = append(a.errs, err)
	}
	a.parts["state"] = state
	for i := range 40 {
		key := fmt.Sprintf("verdict/fleet/%019d", i)
		v, version, err := s.Get(ctx, key)
		if err != nil {
			a.errs = append(a.errs, err)
		}
		a.parts[key] = fmt.Sprint(string(v), version)
	}
	schemas, err := s.Schemas(ctx, flipAt(from), flipAt(flipIntervals))
	if err != nil {
		a.errs = append(a.errs, err)
	}
	a.parts["schemas"] = fmt.Sprint(schemas)
	st := s.Stats()
	a.parts["stats"] = fmt.Sprint(st.Intervals, st.Buckets, st.OldestStart, st.NewestEnd, st.SealedThrough, st.Rollups)
	return a
}

// intervalOf returns the interval that a part is of.
func intervalOf(part string) (start int64, ok bool) {
	n, _ := fmt.Sscan(part, &start)
	return start, n == 1 && start > 0
}

// differs lists the parts that are others than they should be: of intervals those that
// are not told to be damaged, and, if all is said to be well, of everything.
func (a *answered) differs(want *answered, reported bool, skip func(part string) bool) (out []string) {
	keys := maps.Clone(want.parts)
	maps.Copy(keys, a.parts)
	for _, part := range slices.Sorted(maps.Keys(keys)) {
		start, ok := intervalOf(part)
		if ok && (a.damaged[start] || len(a.errs) > 0) || !ok && reported || skip != nil && skip(part) {
			continue
		}
		if a.parts[part] != want.parts[part] {
			out = append(out, fmt.Sprintf("%s = %.200s, want %.200s", part, a.parts[part], want.parts[part]))
		}
	}
	return out
}

// TestFlips flips one bit at a time at places all over a store's file. Every answer is as it was, or the damage is told; and
// what is then appended, rolled up and purged damages nothing that was sound.
func TestFlips(t *testing.T) {
	sound := flippable(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	write(t, path, sound)
	s, err := Open(path, Options{Now: early})
	if err != nil {
		t.Fatal(err)
	}
	want := ask(s, 0)
	half := ask(s, flipIntervals/2)
	s.Close()
	if len(want.errs) > 0 || len(want.damaged) > 0 || len(want.parts) < 300 {
		t.Fatalf("the sound file answers %v, damaged %v, %d parts", want.errs, want.damaged, len(want.parts))
	}
	flips := 120
	if os.Getenv("HTTPCTL_TORTURE") != "" {
		flips = 1000
	}
	if testing.Short() {
		flips = 40
	}
	rng := rand.New(rand.NewPCG(7, 9))
	count := map[string]int{}
	for n := range flips {
		at := rng.IntN(len(sound))
		if n%2 == 0 { // where the structure is
			at = at&^4095 + rng.IntN(200)
		}
		bit := byte(1) << rng.IntN(8)
		b := bytes.Clone(sound)
		b[at] ^= bit
		write(t, path, b)
		what := fmt.Sprintf("flip %d: bit %#x of byte %d (page %d, offset %d)", n, bit, at, at/4096, at%4096)
		watch := time.AfterFunc(2*time.Minute, func() {
			buf := make([]byte, 1<<20)
			panic(what + ": no end\n" + string(buf[:runtime.Stack(buf, true)]))
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		kind, problems := oneFlip(t, path, want, half)
		runtime.ReadMemStats(&after)
		watch.Stop()
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 {
			problems = append(problems, fmt.Sprintf("%d bytes of memory were used", used))
		}
		count[kind]++
		if problems != nil {
			t.Errorf("%s: %s", what, strings.Join(problems, "\n\t"))
		}
	}
	t.Logf("%d flips: %v", flips, count)
	if count["unchanged"] == 0 || count["told"] == 0 || count["refused"] == 0 {
		t.Errorf("%v, want some of each", count)
	}
}

// oneFlip tries a file, and says what became of it and what is wrong.
func oneFlip(t *testing.T, path string, want, half *answered) (kind string, problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var found []string
	unsafeFile := false // a damage that any commit may spread: of the file as a whole, or of its free list
	r, err := Check(ctx, path, CheckOptions{Found: func(d Damage) {
		found = append(found, d.Error())
		unsafeFile = unsafeFile || strings.HasPrefix(d.Where, "the file")
	}})
	if err != nil {
		wrong("Check = %v", err)
		return "failed", problems
	}
	s, err := Open(path, Options{Now: early})
	if err != nil {
		if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrVersion) || r.Damages == 0 {
			wrong("Open = %v, Check finds %q", err, found)
		}
		return "refused", problems
	}
	defer s.Close()
	got := ask(s, 0)
	reported := len(got.errs) > 0 || len(got.damaged) > 0 || s.Stats().ChecksumErrors > 0
	for _, err := range got.errs {
		if !errors.Is(err, store.ErrCorrupt) {
			wrong("an error that does not tell of damage: %v", err)
		}
	}
	if d := got.differs(want, reported, nil); d != nil {
		wrong("told: %t, and %s", reported, strings.Join(d, "\n\t"))
	}
	if reported && r.Damages == 0 {
		wrong("Check finds nothing; %v, damaged %v", got.errs, got.damaged)
	}
	kind = "unchanged"
	if reported {
		kind = "told"
	} else if r.Damages > 0 {
		kind = "told by Check"
	}

	// The store goes on.
	late := 0
	for i := 0; i <= flipIntervals; i += 3 {
		if _, err := s.Append(ctx, []store.Item{item(t, 99, 6+i, 1)}); err != nil {
			late++
			if !errors.Is(err, store.ErrCorrupt) {
				wrong("Append = %v", err)
			}
		}
	}
	if _, err := s.Rollup(ctx, flipAt(flipIntervals)); err != nil && !errors.Is(err, store.ErrCorrupt) {
		wrong("Rollup = %v", err)
	}
	if _, err := s.Purge(ctx, flipAt(flipIntervals/2)); err != nil && !errors.Is(err, store.ErrCorrupt) {
		wrong("Purge = %v", err)
	} else if err != nil {
		if strings.Contains(err.Error(), "cannot be summed up") { // what can be read can, and what cannot is no reason to keep
			wrong("Purge = %v", err)
		}
		late++
	}
	for i := range 6 { // pages that were freed are used again
		appendAll99(s, t, i)
	}
	if late > 0 {
		kind += ", stops"
	}
	now := ask(s, flipIntervals/2)
	other := storetest.ID(99).String()
	if d := now.differs(half, true, func(part string) bool { return strings.HasSuffix(part, other) }); d != nil {
		wrong("after appends and a purge: %s", strings.Join(d, "\n\t"))
	}
	for start := range now.damaged {
		if !got.damaged[start] && !unsafeFile {
			wrong("the interval at %d was sound, and is damaged after appends and a purge; Check found %q", start, found)
		}
	}
	return kind, problems
}

func appendAll99(s *DB, t *testing.T, i int) {
	_, _ = s.Append(ctx, []store.Item{item(t, 99, 6+flipIntervals+10+i, 1), wide(t, 98, 6+flipIntervals+10+i)})
}
