package app

import (
	"errors"
	"log/slog"
	"testing"
)

// TestReadySpool has a write fail, and then succeed.
func TestReadySpool(t *testing.T) {
	a := &Agent{log: slog.New(slog.DiscardHandler), write: make(chan func() error, 3)}
	spooled := func() (err error) {
		for _, c := range a.ready() {
			if c.Name == "spool" {
				err = c.Err
			}
		}
		return err
	}
	full := errors.New("disk full")
	var during error
	a.write <- func() error { return full }
	a.write <- func() error { during = spooled(); return nil }
	close(a.write)
	a.writeBuckets()
	if !errors.Is(during, full) {
		t.Errorf("spool after a failed write = %v, want %v", during, full)
	}
	if err := spooled(); err != nil {
		t.Errorf("spool after a write = %v, want nil", err)
	}
}
