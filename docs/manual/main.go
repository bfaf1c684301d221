// Command manual writes the manual pages: of httpctl and each of its commands, of the daemons, and of their
// configuration. They are made of what --help prints and of docs/configuration.md, so that they say the same.
// It is run from the top of the tree, and part of no program that is shipped.
//
//	go run ./docs/manual -o man
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	out := flag.String("o", "man", "directory to write into")
	flag.Parse()
	if err := run(".", *out, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintf(os.Stderr, "manual: %v\n", err)
		os.Exit(1)
	}
}

// run writes the pages of the tree at root into out. epoch is their date in seconds, "" is today.
func run(root, out, epoch string) error {
	date := time.Now()
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	pages, err := all(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, p := range pages {
		if err := os.WriteFile(filepath.Join(out, p.file()), []byte(p.text(date.UTC())), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// all makes every page.
func all(root string) ([]*page, error) {
	pages := programs()
	for _, name := range []string{"agent", "aggregator"} {
		p, err := settings(root, name)
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	for _, p := range pages {
		p.seeAlso(pages)
	}
	return pages, nil
}
