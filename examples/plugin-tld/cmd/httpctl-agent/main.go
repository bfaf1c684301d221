// Command httpctl-agent is httpctl-agent with one statistic more.
package main

import (
	"os"

	"github.com/httpctl/httpctl/agent/app"

	_ "example.org/httpctl-plugin-tld/tld"
)

func main() { os.Exit(app.Main()) }
