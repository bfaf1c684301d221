package main

import (
	"errors"
	"fmt"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// compare returns an error that names every difference.
func compare(got report, want *testkit.AccessLog) error {
	var errs []error
	differ := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if got.Requests != want.Requests || got.Responses != want.Requests {
		differ("requests, responses = %d, %d, nginx logged %d", got.Requests, got.Responses, want.Requests)
	}
	for dimension, keys := range want.Tops {
		rows := map[string]int64{}
		for _, r := range got.Tops[dimension] {
			rows[r.Key] = r.Hits
		}
		if len(rows) != len(keys) {
			differ("%s has %d keys, want %d", dimension, len(rows), len(keys))
		}
		for key, n := range keys {
			if rows[key] != n {
				differ("%s %q = %d, want %d", dimension, key, rows[key], n)
			}
		}
	}
	for _, r := range got.Tops["volume"] {
		if r.UploadBytes != want.Upload[r.Key] || r.DownloadBytes != want.Download[r.Key] {
			differ("volume of %q = %d up, %d down, want %d, %d", r.Key, r.UploadBytes, r.DownloadBytes, want.Upload[r.Key], want.Download[r.Key])
		}
	}
	return errors.Join(errs...)
}
