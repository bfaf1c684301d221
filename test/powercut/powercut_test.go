//go:build linux

// Package powercut holds the test that cuts the power.
package powercut

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/aggregator/store/storetest"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/exchange"
)

const (
	// childEnv has this program be what is cut off: directories of spool and store, number
	// of the first interval, seed.
	childEnv = "HTTPCTL_TEST_POWERCUT"
	// fullEnv, when set, asks for all cuts instead of a few.
	fullEnv = "HTTPCTL_TORTURE"
	// seedEnv repeats a run, which has printed it.
	seedEnv = "HTTPCTL_TORTURE_SEED"
)

// perFleet is how many cuts a spool and a store live through, before new ones are made.
const perFleet = 20

// requests is what the bucket of an interval counts.
func requests(interval int) uint64 { return uint64(interval)*7 + 1 }

// interval is the number of the one that starts then.
func intervalAt(start int64) int { return int((start - storetest.T0) / int64(storetest.Width)) }

// TestChild is the program whose power is cut: an agent's spool and an aggregator's store, between them what moves buckets from
// the one to the other. It says what it finds, then what it was promised, one thing a line.
func TestChild(t *testing.T) {
	args := strings.Split(os.Getenv(childEnv), "\n")
	if len(args) != 4 {
		t.Skip("runs as a part of TestPowerCuts only")
	}
	number, _ := strconv.Atoi(args[2])
	seed, _ := strconv.ParseUint(args[3], 10, 64)
	fmt.Println()
	if err := child(t, args[0], args[1], number, rand.New(rand.NewPCG(seed, 2))); err != nil {
		fmt.Println("failed", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	os.Exit(0) // as a program does whose disk fails: nothing is put in order
}

func child(t *testing.T, state, data string, number int, rng *rand.Rand) error {
	path := filepath.Join(data, "httpctl.db")
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		r, err := bolt.Check(context.Background(), path, bolt.CheckOptions{Found: func(d bolt.Damage) { fmt.Println("unsound", &d) }})
		if err != nil {
			return err
		}
		if r.Unaccounted > 0 {
			fmt.Println("unsound", r.Unaccounted, "pages are in no use")
		}
		if rng.IntN(6) == 0 {
			if _, _, err := bolt.Compact(context.Background(), path, bolt.CompactOptions{}); err != nil {
				return err
			}
		}
	}
	queue, err := spool.Open(state, spool.DefaultConfig(), spool.Deps{Registry: prometheus.NewRegistry()})
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	early := func() time.Time { return time.Unix(0, storetest.T0).Add(-time.Hour) }
	db, err := bolt.Open(path, bolt.Options{Now: early})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	last, err := tell(queue, db)
	if err != nil {
		return err
	}
	number = max(number, last+1)

	var incarnation bucket.ID // never that of another run
	for i := range incarnation {
		incarnation[i] = byte(rng.Uint32())
	}
	if err := queue.Begin(incarnation, storetest.At(number), storetest.Width); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	first, purged := number, 0
	_, version, err := db.Get(context.Background(), "verdict")
	if err != nil {
		return err
	}
	sent := uint64(0)
	for ; ; number++ {
		h := storetest.Header(1, number)
		h.Incarnation, h.Host, h.Ordinal = incarnation, queue.Host(), uint64(number-first)
		b := storetest.Bucket(h, func(tb *bucket.Table) uint64 {
			for i := range rng.IntN(200) {
				tb.Add([]string{"0", "server", fmt.Sprint("M", rng.Uint64()), "200"}, []int64{int64(i), 1, storetest.At(number), 1e6})
			}
			return requests(number)
		})
		if err := queue.Add(b); err != nil {
			return fmt.Errorf("add: %w", err)
		}
		fmt.Println("spooled", number)
		if rng.IntN(4) > 0 { // the aggregator is away, and then gets several at once
			continue
		}
		var batch []store.Item
		var seqs []uint64
		for len(batch) < 1+rng.IntN(20) {
			seq, data, err := queue.Next(sent)
			if err != nil {
				return fmt.Errorf("next: %w", err)
			}
			if seq == 0 {
				break
			}
			h, err := bucket.DecodeHeader(data)
			if err != nil {
				return err
			}
			batch, seqs, sent = append(batch, store.Item{Header: h, Data: data}), append(seqs, seq), seq
		}
		if len(batch) == 0 {
			continue
		}
		results, err := db.Append(context.Background(), batch)
		if err != nil {
			return fmt.Errorf("append: %w", err)
		}
		for i, it := range batch {
			if results[i] == store.Mismatch {
				fmt.Println("unsound", results[i], intervalAt(it.Header.Start))
			}
			fmt.Println("acknowledged", intervalAt(it.Header.Start))
		}
		if err := queue.Settle(seqs, nil, nil); err != nil {
			return fmt.Errorf("settle: %w", err)
		}
		if rng.IntN(3) == 0 {
			if version, err = db.CompareAndSwap(context.Background(), "verdict", version, []byte(strconv.Itoa(number))); err != nil {
				return fmt.Errorf("swap: %w", err)
			}
			fmt.Println("state", number)
		}
		if n := number - 120; n >= purged+30 {
			purged = n
			fmt.Println("purging", purged)
			if _, err := db.Purge(context.Background(), storetest.At(purged)); err != nil {
				return fmt.Errorf("purge: %w", err)
			}
		}
	}
}

// tell says what spool and store hold, and returns the newest interval of it.
func tell(queue *spool.Spool, db *bolt.DB) (last int, err error) {
	fmt.Println("host", queue.Host())
	if was, ok := queue.Previous(); ok {
		fmt.Println("closed", intervalAt(was.ClosedThrough))
	}
	for after := uint64(0); ; {
		seq, data, err := queue.Next(after)
		if err != nil {
			return 0, fmt.Errorf("next: %w", err)
		}
		if seq == 0 {
			break
		}
		b, err := bucket.Decode(data)
		if err != nil {
			return 0, err
		}
		fmt.Println("queued", intervalAt(b.Start), b.Counters[exchange.Requests])
		after, last = seq, max(last, intervalAt(b.Start))
	}
	a, err := db.Query(context.Background(), store.Plan{Table: "totals", By: []string{}, From: storetest.T0, To: storetest.At(1 << 20), Step: storetest.Width})
	if err != nil {
		return 0, err
	}
	for _, sl := range a.Slices {
		last = max(last, intervalAt(sl.Start))
		fmt.Println("stored", intervalAt(sl.Start), sl.Counters[exchange.Requests], sl.Buckets)
	}
	for _, start := range a.Damaged {
		fmt.Println("unsound interval", intervalAt(start))
	}
	value, _, err := db.Get(context.Background(), "verdict")
	if err != nil {
		return 0, err
	}
	if value != nil {
		fmt.Println("kept", string(value))
	}
	fmt.Println("told")
	return last, nil
}

// ledger is what the child was promised, and what it found after.
type ledger struct {
	spooled, acknowledged map[int]bool
	last, state, purging  int // highest interval; highest state; lowest interval that must be there
	host                  string

	queued, stored map[int]bool // of the run under way
	kept, closed   int
	told           bool
	failed         string
	problems       []string
}

func (l *ledger) begin() {
	l.queued, l.stored, l.kept, l.closed, l.told, l.failed = map[int]bool{}, map[int]bool{}, -1, -1, false, ""
}

func (l *ledger) wrong(format string, args ...any) {
	if len(l.problems) < 20 {
		l.problems = append(l.problems, fmt.Sprintf(format, args...))
	}
}

// read enters what a child says, to its end.
func (l *ledger) read(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		var n, count, buckets int
		_, _ = fmt.Sscan(rest, &n, &count, &buckets)
		switch word {
		case "host":
			if len(l.spooled) > 0 && l.host != rest {
				l.wrong("the host is %s, was %s", rest, l.host)
			}
			l.host = rest
		case "closed":
			l.closed = n
		case "queued", "stored":
			if uint64(count) != requests(n) || word == "stored" && buckets != 1 {
				l.wrong("%s: interval %d has %d requests in %d buckets, want %d in 1", word, n, count, buckets, requests(n))
			}
			if word == "queued" {
				l.queued[n] = true
			} else {
				l.stored[n] = true
			}
			l.last = max(l.last, n)
		case "kept":
			l.kept = n
		case "told":
			l.told = true
			l.compare()
		case "spooled":
			l.spooled[n], l.last = true, max(l.last, n)
		case "acknowledged":
			l.acknowledged[n] = true
		case "state":
			l.state = n
		case "purging":
			l.purging = n
		case "failed":
			l.failed = rest
		case "unsound", "panic:", "fatal":
			l.wrong("%s", lines.Text())
		}
	}
}

// compare holds what was found after a cut against what was promised before it.
func (l *ledger) compare() {
	for n := range l.acknowledged {
		if !l.stored[n] && n >= l.purging {
			l.wrong("interval %d was acknowledged and is not stored", n)
		}
	}
	for n := range l.spooled {
		if !l.stored[n] && !l.queued[n] && n >= l.purging {
			l.wrong("interval %d was spooled and is nowhere", n)
		}
		if l.closed <= n {
			l.wrong("interval %d was spooled, and the spool has closed those before %d", n, l.closed)
		}
	}
	if l.state > l.kept {
		l.wrong("the state was %d, is %d", l.state, l.kept)
	}
}

// TestPowerCuts cuts the power of an agent, of an aggregator, or of both, again and again while they work, in the middle of
// any write, sync or rename, and starts them on what the disk has kept.
func TestPowerCuts(t *testing.T) {
	cuts, seed := 12, uint64(time.Now().UnixNano())
	if os.Getenv(fullEnv) != "" {
		cuts = 200
	}
	if s := os.Getenv(seedEnv); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("%d cuts, %s=%d", cuts, seedEnv, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var agent, aggregator *disk
	var l *ledger
	kinds, moments, spooled, acknowledged := map[string]int{}, map[string]int{}, 0, 0
	acked := func() int { return acknowledged + len(l.acknowledged) }
	for cut := 0; cut < cuts || cut < 10*cuts && (moments["at work"] == 0 || acked() == 0); cut++ { // more, if these have shown nothing
		if cut%perFleet == 0 { // another fleet, on new disks
			if l != nil {
				l.finish(t, agent, aggregator)
				spooled, acknowledged = spooled+len(l.spooled), acknowledged+len(l.acknowledged)
			}
			agent, aggregator = newDisk(), newDisk()
			l = &ledger{spooled: map[int]bool{}, acknowledged: map[int]bool{}, state: -1}
		}
		both := []*disk{agent, aggregator}
		kind := []string{"agent", "aggregator", "both"}[rng.IntN(3)]
		at := 1 + rng.IntN([]int{10, 60, 400}[rng.IntN(3)]) // while it is made or opened, while it begins, while it works
		if kind == "agent" || kind == "both" && rng.IntN(2) == 0 {
			agent.cutAt = at
		} else {
			aggregator.cutAt = at
		}
		dirs := [2]string{t.TempDir(), t.TempDir()}
		var unmount [2]func()
		for i, d := range both {
			unmount[i] = d.mount(t, dirs[i])
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%s\n%d\n%d", childEnv, dirs[0], dirs[1], l.last+1, seed+uint64(cut)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		l.begin()
		read := make(chan struct{})
		go func() { l.read(out); close(read) }()
		select {
		case <-agent.gone:
		case <-aggregator.gone:
		case <-read:
		}
		if kind == "both" { // in one moment, as far as both are in one room
			for _, d := range both {
				d.mu.Lock()
				d.off()
				d.mu.Unlock()
			}
		}
		if rng.IntN(2) == 0 { // sometimes it has time to notice
			select {
			case <-read:
			case <-time.After(time.Second):
			}
		}
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
		for _, u := range unmount {
			u()
		}
		agent.mu.Lock()
		aggregator.mu.Lock()
		happened := agent.cut || aggregator.cut
		agent.mu.Unlock()
		aggregator.mu.Unlock()
		if !happened {
			t.Fatalf("cut %d: the child ended before the power went: %s", cut, l.failed)
		}
		if l.told {
			moments["at work"]++
		} else {
			moments["while it opened"]++
		}
		kinds[kind]++
		if kind == "aggregator" {
			agent = agent.killed()
		} else {
			agent = agent.after(rng)
		}
		if kind == "agent" {
			aggregator = aggregator.killed()
		} else {
			aggregator = aggregator.after(rng)
		}
		if len(l.problems) > 0 {
			t.Fatalf("after cut %d of %s, at write %d:\n%s", cut, kind, at, strings.Join(l.problems, "\n"))
		}
	}

	l.finish(t, agent, aggregator)
	spooled, acknowledged = spooled+len(l.spooled), acknowledged+len(l.acknowledged)
	if moments["at work"] == 0 || acknowledged == 0 {
		t.Error("no cut was in the middle of the work")
	}
	t.Logf("cuts of %v, %v; %d buckets spooled, %d acknowledged", kinds, moments, spooled, acknowledged)
}

// finish has a child tell what is there after the last cut.
func (l *ledger) finish(t *testing.T, agent, aggregator *disk) {
	t.Helper()
	var dirs [2]string
	for i, d := range []*disk{agent, aggregator} {
		dirs[i] = t.TempDir()
		defer d.mount(t, dirs[i])()
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%s\n%d\n%d", childEnv, dirs[0], dirs[1], l.last+1, 0))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.begin()
	var said strings.Builder
	for lines := bufio.NewScanner(out); !l.told && lines.Scan(); l.told = lines.Text() == "told" {
		said.WriteString(lines.Text() + "\n")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	l.told = false
	l.read(strings.NewReader(said.String()))
	if !l.told {
		l.wrong("the child does not tell what is there: %s", l.failed)
	}
	if len(l.problems) > 0 {
		t.Fatalf("after the last cut:\n%s", strings.Join(l.problems, "\n"))
	}
}
