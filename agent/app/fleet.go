package app

import (
	"context"

	"github.com/httpctl/httpctl/agent/fleet"
)

// FleetConfig and the following are those of the simulated fleet of `httpctl bench fleet`.
type (
	FleetConfig = fleet.Config
	FleetResult = fleet.Result
	FleetSample = fleet.Sample
	FleetHost   = fleet.Host
	FleetBucket = fleet.Bucket
)

// What became of a simulated host's bucket.
const (
	FleetWaiting      = fleet.Waiting
	FleetAcknowledged = fleet.Acknowledged
)

// FleetNamePrefix begins the name of every simulated host.
const FleetNamePrefix = fleet.NamePrefix

// DefaultFleet returns the defaults of a simulated fleet.
func DefaultFleet() FleetConfig { return fleet.DefaultConfig() }

// SimulateFleet runs agents without hosts against a real aggregator; the result is there also with an error.
func SimulateFleet(ctx context.Context, cfg FleetConfig) (*FleetResult, error) {
	return fleet.Run(ctx, cfg)
}
