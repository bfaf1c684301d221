package app

import (
	"github.com/httpctl/httpctl/agent/spool"
	"github.com/httpctl/httpctl/agent/uplink"
	"github.com/httpctl/httpctl/pkg/bucket"
	"github.com/httpctl/httpctl/pkg/telemetry"
)

// Protocols are those that the agent speaks.
func Protocols() []string { return []string{uplink.Protocol()} }

// Formats are those that the agent reads and writes (docs/formats.md).
func Formats() []telemetry.Format {
	return []telemetry.Format{{Name: "bucket", Version: bucket.FormatVersion}, {Name: "spool", Version: spool.FormatVersion}}
}
