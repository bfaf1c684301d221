package bolt

import (
	"errors"

	"go.etcd.io/bbolt"

	"github.com/httpctl/httpctl/aggregator/store"
	"github.com/httpctl/httpctl/pkg/bucket"
)

// A dashboard asks for the totals of every host. In the roll-up of a host they stand among all its tables, and to read them
// all of these are inflated, some ten times what they take. So the fleet's entries of a step have a brief for each host: its
// roll-up with nothing but the totals, without response times. They are made with the fleet's roll-up, hold while that is not dirty, and where one is missing or
// damaged the host's own roll-up is read.

// briefTable is the table that briefs have.
const briefTable = "totals"

// maxBrief is the most bytes of a brief: those of all hosts are written at once. A host with so many totals, some thousand
// peers that it counts apart, has none.
const maxBrief = 32 << 10

// briefEntry is the key of a host's brief. No table has a name that begins with 0.
func briefEntry(id bucket.ID) []byte { return append([]byte{entryFleet, 0}, id[:]...) }

// isBrief reports whether a key is one of a brief.
func isBrief(key []byte) bool {
	return len(key) == 2+len(bucket.ID{}) && key[0] == entryFleet && key[1] == 0
}

// briefly reports whether briefs answer the plan.
func briefly(p *store.Plan) bool { return p.Table == "" || p.Table == briefTable && p.Numbers }

// briefOf returns the payload of a host's brief, nil if there is none. It is only to be asked for in a step whose fleet's roll-up is not dirty.
func briefOf(key stepKey, entries *bbolt.Bucket, host bucket.ID) ([]byte, error) {
	entry := briefEntry(host)
	value := entries.Get(entry)
	if value == nil {
		return nil, nil // of a program before there were any
	}
	p, err := unsealEntry(key, entry, value)
	if err == nil && p == nil {
		err = store.ErrCorrupt
	}
	return p, err
}

// hostRollup returns a host's roll-up as far as the plan needs it, from its brief if that may be taken, and reports whether something was
// damaged that there is another for.
func (q *question) hostRollup(d *bucket.Decoder, key stepKey, entries *bbolt.Bucket, host bucket.ID, briefs bool, value []byte) (r *store.Rollup, damaged bool, err error) {
	if briefs {
		p, err := briefOf(key, entries, host)
		if p != nil && err == nil {
			r, err = q.unmarshal(d, p)
		}
		if r != nil || errors.Is(err, store.ErrVersion) {
			return r, false, err
		}
		damaged = err != nil
	}
	p, err := unsealEntry(key, hostEntry(host), value)
	if err == nil && p == nil {
		err = store.ErrCorrupt
	}
	if err != nil {
		return nil, damaged, err
	}
	r, err = q.unmarshal(d, p)
	return r, damaged, err
}
