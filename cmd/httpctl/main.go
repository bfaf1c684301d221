// Command httpctl reads what an aggregator knows, and captures on one host.
package main

import (
	"os"

	"github.com/httpctl/httpctl/cmd/httpctl/command"
)

func main() { os.Exit(command.Main()) }
