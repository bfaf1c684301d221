package command

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
)

// resets keeps what a ticker was set to.
type resets []time.Duration

func (r *resets) Reset(d time.Duration) { *r = append(*r, d) }

// still is a model whose picture is the last text that it was sent.
type still struct {
	n    int
	text string
}

func (m *still) Init() tea.Cmd { return nil }
func (m *still) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.n++
	if text, ok := msg.(string); ok {
		m.text = text
	}
	return m, nil
}
func (m *still) View() tea.View {
	v := tea.NewView(m.text)
	v.AltScreen = true
	return v
}

// TestPace: after a message the ticker goes fast until the picture of the last one has been looked at, then slowly.
func TestPace(t *testing.T) {
	now := noon
	var set resets
	m := &paced{Model: &still{}, now: func() time.Time { return now }, ticker: func() resetter { return &set }}
	m.View() // the first picture, which the program draws at its own pace
	step := func(msg tea.Msg, after time.Duration) (more bool) {
		now = now.Add(after)
		_, cmd := m.Update(msg)
		m.View()
		return cmd != nil
	}
	if !step("key", 0) || step("key", 5*time.Millisecond) {
		t.Error("one idle is to be under way after two messages")
	}
	if !step(idle{}, 5*time.Millisecond) { // of the first one
		t.Error("it went slow although the last picture is 5 ms old")
	}
	if step(idle{}, drawn) {
		t.Error("it asks again although nothing happened")
	}
	m.View()
	if want := (resets{drawSoon, drawSoon, drawIdle}); !slices.Equal(set, want) {
		t.Errorf("the ticker was set to %v, want %v", set, want)
	}
	if !step("key", time.Second) || set[len(set)-1] != drawSoon {
		t.Errorf("a later message does not wake it: %v", set)
	}
	m.ticker = func() resetter { return nil }
	step("key", time.Second) // without a ticker nothing happens
	if m.Model.(*still).n != 4 {
		t.Errorf("the model got %d messages, want 4", m.Model.(*still).n)
	}
}

// terminalOf is what a program writes.
type terminalOf struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *terminalOf) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *terminalOf) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.b.String(), text)
}

// TestPaceOfAProgram: this version of Bubble Tea has the ticker, and a program that looks once an hour still draws what came.
func TestPaceOfAProgram(t *testing.T) {
	out, ready := &terminalOf{}, make(chan resetter, 1)
	var p *tea.Program
	m := &paced{Model: &still{}, now: time.Now}
	m.ticker = func() resetter {
		r := tickerOf(p)
		select {
		case ready <- r:
		default:
		}
		return r
	}
	p = tea.NewProgram(m, tea.WithInput(nil), tea.WithOutput(out), tea.WithWindowSize(80, 24), tea.WithoutSignals(), tea.WithFPS(1))
	done := make(chan error, 1)
	go func() { _, err := p.Run(); done <- err }()
	p.Send("####")
	ticker := <-ready
	if ticker == nil {
		t.Error("the program has no ticker that can be set: it looks for pictures all the time")
	} else {
		ticker.Reset(time.Hour)
		p.Send("wxyz")
		eventuallyHas(t, out, "wxyz")
	}
	p.Quit()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func eventuallyHas(t *testing.T, out *terminalOf, text string) {
	t.Helper()
	for range 18_000 { // three minutes
		if out.has(text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%q was not written: %q", text, out.b.String())
}
