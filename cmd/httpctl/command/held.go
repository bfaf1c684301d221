package command

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"

	aggregator "github.com/httpctl/httpctl/aggregator/app"
)

// maxHeld bounds the messages that wait for the terminal.
const maxHeld = 64 << 10

// held keeps log messages while the dashboard has the terminal: the last ones,
// whole lines. The zero value is ready. It is safe for concurrent use.
type held struct {
	mu   sync.Mutex
	text []byte
	lost bool
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p...)
	if over := len(h.text) - maxHeld; over > 0 {
		h.lost = true
		if i := bytes.IndexByte(h.text[over:], '\n'); i >= 0 {
			over += i + 1
		}
		h.text = append(h.text[:0], h.text[over:]...)
	}
	return len(p), nil
}

// writeTo writes what was held, and forgets it.
func (h *held) writeTo(w io.Writer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost {
		_, _ = io.WriteString(w, "(earlier messages are not kept)\n")
	}
	_, _ = w.Write(h.text)
	h.text, h.lost = nil, false
}

// withoutHistory leaves out what the dashboard has shown.
type withoutHistory struct{ slog.Handler }

func (h withoutHistory) Handle(ctx context.Context, r slog.Record) error {
	if aggregator.TellsHistory(r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h withoutHistory) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutHistory{h.Handler.WithAttrs(attrs)}
}

func (h withoutHistory) WithGroup(name string) slog.Handler {
	return withoutHistory{h.Handler.WithGroup(name)}
}
