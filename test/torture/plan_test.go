package torture

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is what the script can do.
type kind int

const (
	killAgent      kind = iota // SIGKILL, started again on its old state after a while
	killAggregator             // the same
	cut                        // the connection ends in the middle of a frame, or nearly at once
	stall                      // nothing passes for a while, in either direction
	oneWay                     // answers vanish, then the connection ends
	reorder                    // what was sent arrives after the agent has connected anew and sent it again
	dribble                    // a few bytes at a time
	dropPackets                // nft drops a share of the packets between agents and aggregator
	fillAgent                  // the file system of an agent's state is full (ENOSPC)
	fillAggregator             // the same of the aggregator's data
	failAgent                  // fsync and fdatasync of an agent fail (EIO)
	failAggregator             // the same of the aggregator
	kinds
)

var kindText = [kinds]string{
	killAgent: "its agent is killed", killAggregator: "the aggregator is killed", cut: "its connection is cut",
	stall: "its connection stalls", oneWay: "the answers to it vanish", reorder: "what it sent arrives late, after a new connection",
	dribble: "its connection passes a few bytes at a time", dropPackets: "packets to and from the aggregator are dropped",
	fillAgent: "its disk is full", fillAggregator: "the aggregator's disk is full", failAgent: "its fsync fails", failAggregator: "the aggregator's fsync fails",
}

// speaksTCP tells the hosts that reach the aggregator by TCP, and meet dropped packets; a proxy spoils the connections of
// the others.
func speaksTCP(host int) bool { return host%3 == 2 }

// event is one thing that the script does. What it does to one actor is in
// order, and never two at a time.
type event struct {
	at    time.Duration // since the start
	kind  kind
	host  int           // -1: not one of them
	lasts time.Duration // how long the process is away, or the network is bad
	n     int           // bytes that pass before a cut; percent of packets; microseconds from a bucket to a kill that is aimed at it
	aimed bool          // a kill waits for the next bucket to be sent, and comes within 3 ms of it
}

func (e event) String() string {
	host := ""
	if e.host >= 0 {
		host = fmt.Sprintf(" of host-%d", e.host)
	}
	return fmt.Sprintf("%v %s%s for %v (%d)", e.at, kindText[e.kind], host, e.lasts, e.n)
}

// means are what this machine lets the script do.
type means struct{ nft, mount, strace bool }

// plan makes the script of a seed: the same for the same arguments.
func plan(seed uint64, hosts int, length time.Duration, can means) []event {
	var events []event
	r := rand.New(rand.NewPCG(seed, 7))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(r.Int64N(int64(high-low))) }
	const ms = time.Millisecond
	actor := func(pauseLow, pauseHigh time.Duration, make func() event) {
		for at := between(pauseLow/2, pauseHigh); ; {
			e := make()
			e.at = at
			if at+e.lasts > length {
				return
			}
			events = append(events, e)
			at += e.lasts + between(pauseLow, pauseHigh)
		}
	}
	away := func() time.Duration { // mostly short; sometimes longer than a few intervals
		if r.IntN(8) == 0 {
			return between(1500*ms, 4*time.Second)
		}
		return between(0, 400*ms)
	}
	for h := range hosts {
		actor(2*time.Second, 9*time.Second, func() event {
			return event{kind: killAgent, host: h, lasts: away(), n: r.IntN(3000), aimed: r.IntN(2) == 0}
		})
		if speaksTCP(h) {
			continue
		}
		actor(500*ms, 4*time.Second, func() event {
			return event{kind: cut + kind(r.IntN(int(dribble-cut)+1)), host: h, lasts: between(300*ms, 2*time.Second), n: r.IntN(3000)}
		})
	}
	actor(1500*ms, 6*time.Second, func() event {
		return event{kind: killAggregator, host: -1, lasts: away(), n: r.IntN(3000), aimed: r.IntN(2) == 0}
	})
	for _, e := range events {
		if e.kind == killAggregator && r.IntN(4) == 0 { // an agent goes with it
			events = append(events, event{at: e.at, kind: killAgent, host: r.IntN(hosts), lasts: away()})
		}
	}
	if can.nft {
		actor(2*time.Second, 5*time.Second, func() event {
			return event{kind: dropPackets, host: -1, lasts: between(300*ms, 3*time.Second), n: []int{10, 30, 99}[r.IntN(3)]}
		})
	}
	var disk []kind // faults of an agent's; those of the aggregator's follow them
	if can.mount {
		disk = append(disk, fillAgent)
	}
	if can.strace {
		disk = append(disk, failAgent)
	}
	for h := -1; h < hosts && len(disk) > 0; h++ {
		actor(5*time.Second, 15*time.Second, func() event {
			e := event{kind: disk[r.IntN(len(disk))], host: h, lasts: between(300*ms, 3*time.Second)}
			switch {
			case h < 0:
				e.kind++
			case e.kind == fillAgent:
				e.lasts *= 2 // a few intervals to hold
			}
			return e
		})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	return events
}
