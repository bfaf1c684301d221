// Command httpctl-agent watches the HTTP traffic of a host and delivers what
// it counts to an aggregator.
package main

import (
	"os"

	"github.com/httpctl/httpctl/agent/app"
)

func main() { os.Exit(app.Main()) }
