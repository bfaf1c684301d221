package app

import (
	"github.com/httpctl/httpctl/aggregator/ingest"
	"github.com/httpctl/httpctl/aggregator/store/bolt"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// Protocols are those that the aggregator speaks.
func Protocols() []string { return []string{ingest.Protocol()} }

// Formats are those that the aggregator reads and writes (docs/formats.md).
func Formats() []telemetry.Format {
	return []telemetry.Format{{Name: "bucket", Version: bucket.FormatVersion}, {Name: "store", Version: bolt.FormatVersion}}
}
