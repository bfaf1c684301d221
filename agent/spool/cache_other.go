//go:build !linux

package spool

import "os"

// dropCache does nothing: there is no portable way to drop cached pages.
func dropCache(*os.File) {}
