package app

import (
	"testing"
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// TestReloadOfRollups: how long roll-ups are kept is read again by the next purge.
func TestReloadOfRollups(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Data, cfg.Listen, cfg.Metrics = t.TempDir(), nil, ""
	a := startApp(t, cfg)
	if got := a.currentRollups(); *got != DefaultRollups() {
		t.Errorf("at the start roll-ups are kept as %+v", *got)
	}
	changed := DefaultConfig()
	f, err := config.Parse("aggregator.yaml", []byte("aggregator: {rollups: {minutes: 3d, hours: 30d, days: 300d}}\n"), nil, config.Section{Name: "aggregator", Into: &changed})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	if got, want := *a.currentRollups(), (Rollups{Minutes: 3 * day, Hours: 30 * day, Days: 300 * day}); got != want {
		t.Errorf("after a reload roll-ups are kept as %+v, want %+v", got, want)
	}
}
