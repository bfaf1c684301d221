package query

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/peer"
)

// TestNobodyTakesAllSlots: who asks as much as he can leaves a slot to the others, his questions wait, and nothing of him is left behind.
func TestNobodyTakesAllSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		from := func(address string) context.Context {
			a, err := net.ResolveTCPAddr("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			return peer.NewContext(t.Context(), &peer.Peer{Addr: a})
		}
		enter := func(ctx context.Context) func() {
			leave, err := s.enter(ctx)
			if err != nil {
				t.Error(err)
			}
			return leave
		}
		greedy := from("192.0.2.1:1000")
		var held []func()
		for range maxPerViewer {
			held = append(held, enter(greedy))
		}
		entered := 0
		for range 2 {
			go func() {
				leave := enter(from("192.0.2.1:2000")) // another connection of his
				entered++
				leave()
			}()
		}
		synctest.Wait()
		if entered > 0 {
			t.Errorf("%d more questions of one viewer were admitted beside %d", entered, maxPerViewer)
		}
		other := enter(from("192.0.2.2:1000")) // does not wait
		short, cancel := context.WithCancel(from("192.0.2.3:1000"))
		cancel()
		if _, err := s.enter(short); err == nil {
			t.Error("a fifth question was admitted, or did not end with its context")
		}
		other()
		for _, leave := range held {
			leave()
		}
		synctest.Wait()
		if entered != 2 || len(s.viewers) != 0 || len(s.all) != 0 {
			t.Errorf("%d of 2 that waited were admitted; %d viewers and %d slots in use are left", entered, len(s.viewers), len(s.all))
		}
	})
}
