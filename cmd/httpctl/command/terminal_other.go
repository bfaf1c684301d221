//go:build !linux

package command

import "os"

// terminal is not taken over on this system.
type terminal struct{}

func openTerminal(*os.File) *terminal    { return nil }
func (*terminal) Take()                  {}
func (*terminal) Give()                  {}
func (*terminal) Quit() <-chan struct{}  { return nil }
func (*terminal) Stop() <-chan os.Signal { return nil }
func (*terminal) Suspend()               {}
