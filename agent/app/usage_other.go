//go:build !linux

package app

import (
	"time"

	"github.com/httpctl/httpctl/pkg/config"
)

// Only Linux can capture; elsewhere nothing asks for these.
func threadTime() time.Duration    { return 0 }
func processTime() time.Duration   { return 0 }
func kernelRelease() string        { return "not there" }
func availableMemory() config.Size { return 0 }
