package live

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// counter is a terminal that keeps what is written to it.
type counter struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func newCounter() *counter { return &counter{} }

func (c *counter) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(b)
}

func (c *counter) n() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Len()
}

// until waits until the text was written.
func (c *counter) until(t *testing.T, text string) {
	t.Helper()
	for range 18_000 { // three minutes
		c.mu.Lock()
		has := strings.Contains(c.b.String(), text)
		c.mu.Unlock()
		if has {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%q was not written", text)
}

// quiet is a model that asks nothing by itself and does not tick.
type quiet struct{ *Model }

func (q quiet) Init() tea.Cmd { return nil }

func (q quiet) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	q.Model.Update(msg)
	return q, nil
}
