package bolt

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// Damaged steps are not just left out: one that is coarser and not made yet would be made without them, and say
// nothing of it. What is sound of them stays. The rest is to be made again where what it sums up is
// there, and else stands there as damaged, which what is made of it says too.

// isDamagedStep reports whether a key of a part is that of a damaged step, or of its manifest.
func (c *compactor) isDamagedStep(part string, k []byte) bool {
	_, ok := parseStepKey(k)
	return ok && (part == string(bucketRollups) || part == string(bucketRollupManifests)) && c.keys[string(bucketRollups)+"/"+string(k)]
}

// mendSteps makes the damaged steps in the copy, which has all else.
func (c *compactor) mendSteps(src *bbolt.Tx) error {
	var damaged []stepKey
	for k := range c.keys {
		if name, ok := strings.CutPrefix(k, string(bucketRollups)+"/"); ok {
			if key, ok := parseStepKey([]byte(name)); ok {
				damaged = append(damaged, key)
			}
		}
	}
	// The finer before what is made of them.
	slices.SortFunc(damaged, func(x, y stepKey) int { return bytes.Compare(x[:], y[:]) })
	for _, key := range damaged {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.mendStep(src, key); err != nil {
			return fmt.Errorf("mend the roll-ups of %s: %w", tellStep(key), err)
		}
		if err := c.commit(); err != nil {
			return err
		}
	}
	return nil
}

// mendStep makes one.
func (c *compactor) mendStep(src *bbolt.Tx, key stepKey) error {
	sound, lost, all := c.readable(src, key)
	below := c.hostsBelowCopied(key)
	if !all { // it cannot be told whose are missing
		hosts := maps.Clone(below)
		if key.resolution() < store.Day {
			coarser := key.resolution() + 1
			_ = c.eachEntry(src, newStepKey(coarser, coarser.Floor(key.start())), func(k, _ []byte) {
				if host, ok := hostOf(k); ok {
					hosts[host] = true
				}
			})
		}
		for host := range hosts {
			if entry := string(hostEntry(host)); sound[entry] == nil {
				lost[entry] = true
			}
		}
	}
	again, gone := 0, 0
	fleet := !all || sound[string(fleetHeader)] == nil
	for entry := range lost {
		host, ok := hostOf([]byte(entry))
		fleet = fleet || !ok
		switch {
		case !ok:
		case below[host]:
			again++
		default:
			gone++
		}
	}
	if len(sound)+again+gone == 0 {
		c.tell("the roll-ups of " + tellStep(key))
		return nil
	}
	entries, err := c.tx.Bucket(bucketRollups).CreateBucket(key[:])
	if err != nil {
		return err
	}
	entries.FillPercent = fillPercent
	st := openStep{key: key, entries: entries}
	for _, entry := range slices.Sorted(maps.Keys(sound)) {
		k, p := []byte(entry), sound[entry]
		_, host := hostOf(k)
		c.pending += len(k) + len(p)
		switch {
		case !host && fleet:
		case p[0] == 0:
			err = st.soil(k)
		default:
			err = st.clean(k, p)
		}
		if err != nil {
			return err
		}
	}
	for _, entry := range slices.Sorted(maps.Keys(lost)) {
		host, ok := hostOf([]byte(entry))
		switch {
		case !ok:
		case below[host]:
			err = st.soil([]byte(entry))
		default:
			b := store.NewRollupBuilder(host, key.resolution(), key.start())
			b.Damage(key.start())
			var v []byte
			if v, err = b.Rollup().AppendBinary(nil); err == nil {
				err = st.clean([]byte(entry), v)
			}
		}
		if err != nil {
			return err
		}
	}
	if fleet {
		if err := st.soil(fleetHeader); err != nil {
			return err
		}
	}
	var what []string
	if gone > 0 {
		what = append(what, fmt.Sprintf("hosts' that are lost, which answers say: %d", gone))
	}
	if again > 0 {
		what = append(what, fmt.Sprintf("hosts' that are made again from what they sum up: %d", again))
	}
	if fleet {
		what = append(what, "the fleet's, which is made again")
	}
	if what == nil {
		what = []string{"nothing"}
	}
	c.tell("of the roll-ups of " + tellStep(key) + ": " + strings.Join(what, "; "))
	return c.tx.Bucket(bucketRollupManifests).Put(key[:], st.m.value(key[:]))
}

// readable returns the payloads of a step's sound entries, and the keys of the others. All is false if more may be missing.
func (c *compactor) readable(src *bbolt.Tx, key stepKey) (sound map[string][]byte, lost map[string]bool, all bool) {
	sound, lost = map[string][]byte{}, map[string]bool{}
	var got stepManifest
	err := c.eachEntry(src, key, func(k, v []byte) {
		got.count++
		got.xor ^= nameHash(k)
		p, err := unseal(crcKey(key[:], k), v)
		if err == nil && len(p) > 0 && p[0] != 0 {
			_, err = store.UnmarshalRollupHeader(p)
		}
		switch {
		case err == nil && len(p) > 0:
			sound[string(k)] = p // in src, which stays open
		default:
			lost[string(k)] = true
		}
	})
	want, merr := parseStepManifest(key[:], src.Bucket(bucketRollupManifests).Get(key[:]))
	all = err == nil && merr == nil && got.count == want.count && got.xor == want.xor
	if !all { // a key among them may be none of this step
		clear(lost)
	}
	return sound, lost, all
}

// eachEntry calls f for the entries of a step, as far as its pages can be followed.
func (c *compactor) eachEntry(src *bbolt.Tx, key stepKey, f func(k, v []byte)) error {
	return guard(func() error {
		entries, err := c.entries(src, key)
		if err != nil || entries == nil {
			return err
		}
		return entries.ForEach(func(k, v []byte) error {
			f(k, v)
			return nil
		})
	})
}

// hostsBelowCopied is hostsBelow in the copy.
func (c *compactor) hostsBelowCopied(key stepKey) map[bucket.ID]bool {
	hosts := map[bucket.ID]bool{}
	if key.resolution() == store.Minute {
		intervals := c.tx.Bucket(bucketIntervals)
		cursor := intervals.Cursor()
		for k, _ := cursor.Seek(startKey(key.start())); k != nil && bytes.Compare(k, startKey(key.end())) < 0; k, _ = cursor.Next() {
			if blobs := intervals.Bucket(k); blobs != nil {
				hostsOf(blobs, hosts)
			}
		}
		return hosts
	}
	finer := key.resolution() - 1
	steps := c.tx.Bucket(bucketRollups)
	cursor := steps.Cursor()
	first, end := newStepKey(finer, key.start()), newStepKey(finer, key.end())
	for k, _ := cursor.Seek(first[:]); k != nil && bytes.Compare(k, end[:]) < 0; k, _ = cursor.Next() {
		entries := steps.Bucket(k)
		if entries == nil {
			continue
		}
		c := entries.Cursor()
		for entry, _ := c.First(); entry != nil; entry, _ = c.Next() {
			if host, ok := hostOf(entry); ok {
				hosts[host] = true
			}
		}
	}
	return hosts
}
