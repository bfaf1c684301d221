package bolt

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
)

// toRoll is what helps against damaged roll-ups.
const toRoll = "answers go by what it sums up, if that is there, and say so; " + toDrop

// rollups looks at each step of roll-ups and its manifest.
func (c *checker) rollups(tx *bbolt.Tx) error {
	if c.skip[string(bucketRollupManifests)] || tx.Bucket(bucketRollupManifests) == nil {
		if !c.skip[string(bucketRollupManifests)] {
			c.found(Damage{Where: "the file", Err: fmt.Errorf("it has no %q: %w", bucketRollupManifests, store.ErrCorrupt), Costs: toRestore, Remedy: Replace})
		}
		return nil
	}
	for _, name := range [][]byte{bucketRollups, bucketRollupManifests} {
		if err := tx.Bucket(name).ForEach(func(k, _ []byte) error {
			if _, ok := parseStepKey(k); !ok {
				c.found(Damage{Where: fmt.Sprintf("the key %x of %q", k, name), Err: fmt.Errorf("it names no minute, hour or day: %w", store.ErrCorrupt),
					Costs: "it is passed over; " + toDrop, Remedy: Drop, part: string(name), key: string(k)})
			}
			return c.ctx.Err()
		}); err != nil {
			return err
		}
	}
	for r := store.Minute; r <= store.Day; r++ {
		next := c.stepsOf(tx, r, 0, 1<<63-1)
		for key, ok := next(); ok; key, ok = next() {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if err := c.step(tx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func tellStep(key stepKey) string {
	return fmt.Sprintf("the %s of %s", key.resolution(), tell(key.start()))
}

// step looks at one step. What is wrong with it is one damage.
func (c *checker) step(tx *bbolt.Tx, key stepKey) error {
	c.report.Rollups++
	u := c.unsoundSteps[key]
	var err error
	if u != nil && !u.shared {
		err = u.err
	} else {
		err = guard(func() error { return c.entriesOf(tx, key, u != nil) })
	}
	switch {
	case errors.Is(err, store.ErrVersion):
		return err
	case err != nil:
		c.found(Damage{Where: "the roll-ups of " + tellStep(key), Err: err, Costs: toRoll, Remedy: Drop, part: string(bucketRollups), key: string(key[:])})
	case u != nil:
		c.found(Damage{Where: "the roll-ups of " + tellStep(key), Err: u.err, Costs: toRewrite, part: string(bucketRollups), key: string(key[:])})
	}
	return nil
}

func (c *checker) entriesOf(tx *bbolt.Tx, key stepKey, shared bool) error {
	entries, value := tx.Bucket(bucketRollups).Bucket(key[:]), tx.Bucket(bucketRollupManifests).Get(key[:])
	if value == nil {
		return fmt.Errorf("their manifest is missing: %w", store.ErrCorrupt)
	}
	want, err := parseStepManifest(key[:], value)
	if err != nil {
		return fmt.Errorf("their manifest: %w", err)
	}
	if entries == nil {
		return fmt.Errorf("%d roll-ups are missing: %w", want.count, store.ErrCorrupt)
	}
	if shared { // Walk has not followed what another has, too
		if err := c.pages.Tree(uint64(entries.Root())); err != nil {
			return corrupt(err)
		}
	}
	var got stepManifest
	cursor := entries.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		got.count++
		got.xor ^= nameHash(k)
		p, err := unsealEntry(key, k, v)
		if err != nil {
			return fmt.Errorf("the entry %x: %w", k, err)
		}
		if p == nil {
			got.dirty++
			continue
		}
		if _, err := store.UnmarshalRollupHeader(p); err != nil {
			return fmt.Errorf("the entry %x: %w", k, err)
		}
	}
	if got != want {
		return fmt.Errorf("their manifest names %d roll-ups, %d to be made; there are %d, %d: %w", want.count, want.dirty, got.count, got.dirty, store.ErrCorrupt)
	}
	return nil
}

// past looks at the hosts of which only roll-ups are left.
func (c *checker) past(tx *bbolt.Tx) error {
	return tx.Bucket(bucketPast).ForEach(func(k, v []byte) error {
		if _, err := parsePast(k, v); err != nil {
			c.found(Damage{Where: fmt.Sprintf("the record of past host %x", k), Err: err, part: string(bucketPast), key: string(k),
				Costs: "its roll-ups can be asked for by its id only; " + toDrop, Remedy: Drop})
		}
		return c.ctx.Err()
	})
}
