package app

import (
	"fmt"
	"strings"

	"github.com/httpctl/httpctl/pkg/telemetry"
)

// live says whether the agent's loops go round. The pipelines wait for the disk once enough closed
// buckets do, so a disk that never answers shows here too.
func (a *Agent) live() []telemetry.Condition {
	conditions := []telemetry.Condition{{Name: "clock", Err: a.timers.Check(telemetry.Stuck)}}
	for i, p := range a.pipelines {
		conditions = append(conditions, telemetry.Condition{Name: fmt.Sprintf("pipeline %d", i), Err: p.beat.Check(telemetry.Stuck)})
	}
	return conditions
}

// ready says whether the agent captures, and keeps what it counts. It does both without the
// aggregator, for as long as the spool has room.
func (a *Agent) ready() []telemetry.Condition {
	var spooled error
	if err := a.unwritten.Load(); err != nil {
		spooled = *err
	}
	return []telemetry.Condition{{Name: "capture", Err: a.capturing()}, {Name: "spool", Err: spooled}}
}

// capturing returns an error when none of the interfaces is there.
func (a *Agent) capturing() error {
	wanted := a.cfg.Capture.Interfaces
	for _, r := range a.rings {
		if len(r.Missing()) < max(1, len(wanted)) {
			return nil
		}
	}
	if len(a.rings) == 0 {
		return nil // a file is replayed
	}
	return fmt.Errorf("none of the interfaces is there: %s", strings.Join(wanted, ", "))
}
