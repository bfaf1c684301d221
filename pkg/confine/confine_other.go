//go:build !linux || !(amd64 || arm64)

package confine

import "errors"

// Apply does nothing on this system, and says so.
func Apply(Needs) (Result, error) {
	return Result{}, errors.New("confinement is made for Linux on amd64 and arm64")
}
