// Command httpctl is httpctl with one statistic more.
package main

import (
	"os"

	"github.com/httpctl/httpctl/cmd/httpctl/command"

	_ "example.org/httpctl-plugin-tld/tld"
)

func main() { os.Exit(command.Main()) }
