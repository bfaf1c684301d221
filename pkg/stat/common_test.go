package stat

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

// TestCommon: the statistics that Common does the work of count as they do one by one, wherever in memory strings are,
// while rows are replaced, and when tables change.
func TestCommon(t *testing.T) {
	for _, maxKeys := range []int{1000, 9, 1} {
		r := rand.New(rand.NewPCG(5, uint64(maxKeys)))
		list := exchanges(r, 3000)
		var want, got []*set
		for range 2 {
			want, got = append(want, newSet(t, maxKeys)), append(got, newSet(t, maxKeys))
		}
		var at []int
		for i := range got[0].modules {
			at = append(at, i)
		}
		c, of := NewCommon(got[0].modules, at)
		if c == nil {
			t.Fatal("not all are built in")
		}
		for i, name := range Builtin {
			if !of[i] {
				t.Errorf("Common leaves %s to others", name)
			}
		}
		turn := 0
		observe := func(o *exchange.Observation) {
			want[turn].Observe(o)
			var all []*bucket.Table
			for _, tables := range got[turn].tables {
				all = append(all, tables...)
			}
			c.Observe(o, all)
		}
		for i, x := range list {
			switch r.IntN(20) {
			case 0:
				x.Mirror = "0a"
			case 1:
				x.Mirror = strings.Clone("0a")
			case 2:
				x.Section, x.Domain, x.Method = strings.Clone(x.Section), strings.Clone(x.Domain), strings.Clone(x.Method)
			case 3:
				x.Role = exchange.Client
			case 4:
				x.ClientName = "a"
			case 5:
				x.ClientName, x.UserAgent = "b", strings.Clone(x.UserAgent)
			case 6:
				x.ResponseWireBytes = 1<<63 + uint64(i%2)<<62 // as a chunk may claim, and more than a sum holds
			}
			if i > 0 && r.IntN(3) > 0 { // most are like one of before
				o := list[r.IntN(i)]
				x.HasRequest, x.Method, x.Domain, x.Section, x.Mirror = o.HasRequest, o.Method, o.Domain, o.Section, o.Mirror
				x.HasResponse = x.HasResponse || !x.HasRequest
			}
			if i > 0 && r.IntN(3) > 0 {
				o := list[r.IntN(i)]
				x.Client, x.Server, x.UserAgent, x.ClientName = o.Client, o.Server, o.UserAgent, o.ClientName
			}
			play(sink(observe), x, i%7 == 0)
			if i%500 == 499 {
				turn = 1 - turn
			}
			if i%300 == 0 {
				for k := range got[turn].tables {
					got[turn].tables[k][0].Shed()
					want[turn].tables[k][0].Shed()
				}
			}
		}
		for turn := range got {
			for k, tables := range got[turn].tables {
				a, b := tables[0], want[turn].tables[k][0]
				if len(b.Rows) == 0 || !reflect.DeepEqual(a.Top(0, 0), b.Top(0, 0)) || !reflect.DeepEqual(a.Other, b.Other) || a.Floor != b.Floor || a.Folded != b.Folded || a.Bytes() != b.Bytes() {
					t.Errorf("max_keys %d: table %s is not that of the statistics one by one", maxKeys, b.Schema.Name)
				}
			}
		}
	}
	if c, of := NewCommon(newSet(t, 1).modules[1:], make([]int, 7)); c != nil || of[0] {
		t.Error("a Common without totals")
	}
}

type sink func(*exchange.Observation)

func (f sink) Observe(o *exchange.Observation) { f(o) }
