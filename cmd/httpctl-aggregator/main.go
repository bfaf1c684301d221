// Command httpctl-aggregator takes the buckets of a fleet's agents, keeps and
// judges them, and answers httpctl.
package main

import (
	"os"

	"github.com/httpctl/httpctl/aggregator/app"
)

func main() { os.Exit(app.Main()) }
