package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

const two = `{"agents": 100, "interval_seconds": 10, "aggregator_cores": 0.02, "aggregator_resident_bytes": 104857600, "aggregator_anonymous_bytes": 52428800, "disk_bytes_per_bucket": 16000, "backlog": [90, 3, 2], "ack_seconds": {"p99": 0.5}, "simulator_cores": 0.01}
{"agents": 10, "interval_seconds": 10, "aggregator_cores": 0.002, "aggregator_resident_bytes": 104857600, "aggregator_anonymous_bytes": 20971520, "disk_bytes_per_bucket": 16000}`

func TestRun(t *testing.T) {
	var out, log strings.Builder
	if err := run(strings.NewReader(two), &out, &log); err != nil {
		t.Fatal(err)
	}
	if want := "| 10 | 0.2% | 20 | 100 | 16000 | 1.3 | 0.00 s | 0 | 0.0% |\n| 100 | 2.0% | 50 | 100 | 16000 | 12.9 | 0.50 s | 3 | 1.0% |\n"; !strings.HasSuffix(log.String(), want) {
		t.Errorf("table:\n%s\nwant at its end\n%s", &log, want)
	}
	circles := 0
	for d := xml.NewDecoder(strings.NewReader(out.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 6 {
		t.Errorf("%d points, want 6", circles)
	}
	for _, bad := range []string{"", `{"agents": 10}`, strings.SplitN(two, "\n", 2)[0], "x"} {
		if err := run(strings.NewReader(bad), io.Discard, io.Discard); err == nil {
			t.Errorf("run(%q) = nil, want an error", bad)
		}
	}
}
