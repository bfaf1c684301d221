package access

import (
	"context"
	"sync"
)

const (
	// maxStrangerCalls bounds the calls under way of peers that have no role, which can only be those that check by
	// themselves who calls: together, and of one source. Each may hold a message of ingest.max_message_size in memory.
	maxStrangerCalls         = 64
	maxStrangerCallsOfSource = 16
	// maxHostCalls bounds those of a certificate that names its host: an agent has one stream, and for a moment the
	// one before it.
	maxHostCalls = 8
	// maxCalls bounds those of any other certificate from one source: some authorities give all hosts of a site the
	// same one.
	maxCalls = 2000
	// maxStrikes is after how many refusals a connection is closed: gRPC keeps something of each until then.
	maxStrikes = 1000
)

// busy counts the calls under way. The zero value is ready; it is safe for concurrent use.
type busy struct {
	mu    sync.Mutex
	calls map[string]int
}

// strangers is the key under which those of all strangers are counted; no source and no identity is called so.
const strangers = "\x00"

// enter counts a call until ctx ends. It returns the limit that it would exceed, 0 if there is none.
func (b *busy) enter(ctx context.Context, p *Peer) (limit int) {
	type bound struct {
		key  string
		most int
	}
	var bounds []bound
	switch {
	case p.Roles == 0:
		bounds = []bound{{strangers, maxStrangerCalls}, {strangers + p.source.String(), maxStrangerCallsOfSource}}
	case p.way != certificate:
		return 0
	case !p.Host.IsZero():
		bounds = []bound{{p.Identity, maxHostCalls}}
	default:
		bounds = []bound{{p.Identity + "\x00" + p.source.String(), maxCalls}}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range bounds {
		if b.calls[l.key] >= l.most {
			return l.most
		}
	}
	if b.calls == nil {
		b.calls = map[string]int{}
	}
	for _, l := range bounds {
		b.calls[l.key]++
	}
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, l := range bounds {
			if b.calls[l.key]--; b.calls[l.key] == 0 {
				delete(b.calls, l.key)
			}
		}
	})
	return 0
}
