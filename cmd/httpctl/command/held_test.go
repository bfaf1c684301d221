package command

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestHeldMessages: alerts are history, which the dashboard has shown, and so are
// pauses; what else was logged while it had the terminal is told at the end, the last of it.
func TestHeldMessages(t *testing.T) {
	messages := &held{}
	log := slog.New(withoutHistory{slog.NewTextHandler(messages, nil)})
	for _, log := range []*slog.Logger{log, log.With("room", "judge"), log.WithGroup("judge")} {
		log.Warn("alert raised", "requests", 437)
		log.Warn("alert dismissed", "requests", 12)
		log.Warn("no host was observed, nothing to judge", "from", "then")
		log.Warn("the aggregator is away", "since", "now")
	}
	var out bytes.Buffer
	messages.writeTo(&out)
	if got := out.String(); strings.Contains(got, "alert") || strings.Contains(got, "judge\"") || strings.Count(got, "the aggregator is away") != 3 {
		t.Errorf("at the end it tells:\n%s", got)
	}

	long := strings.Repeat("x", 1000)
	for range 2 * maxHeld / len(long) {
		log.Warn(long)
	}
	log.Warn("the last one")
	out.Reset()
	messages.writeTo(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if out.Len() > maxHeld+100 || !strings.HasPrefix(lines[0], "(earlier") || !strings.HasPrefix(lines[1], "time=") || !strings.Contains(lines[len(lines)-1], "the last one") {
		t.Errorf("of too many it tells %d bytes: %.40q, %.40q ... %.80q", out.Len(), lines[0], lines[1], lines[len(lines)-1])
	}
}
