package bucket

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMergeSpans: the result covers the same moments, sorted and apart.
func TestMergeSpans(t *testing.T) {
	if got := MergeSpans(nil); len(got) != 0 {
		t.Errorf("MergeSpans(nil) = %v, want none", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var in []Span
		var want [40]bool
		for range rng.IntN(8) {
			s := Span{int64(rng.IntN(30)), int64(rng.IntN(40))} // some are empty
			in = append(in, s)
			for i := s.From; i < s.To; i++ {
				want[i] = true
			}
		}
		out := MergeSpans(slices.Clone(in))
		var got [40]bool
		for i, s := range out {
			if s.From >= s.To || i > 0 && s.From <= out[i-1].To {
				t.Fatalf("MergeSpans(%v) = %v, want them sorted and apart", in, out)
			}
			for m := s.From; m < s.To; m++ {
				got[m] = true
			}
		}
		if got != want {
			t.Fatalf("MergeSpans(%v) = %v covers other moments", in, out)
		}
	}
}
