package judge

import (
	"errors"
	"fmt"
	"strings"

	"github.com/httpctl/httpctl/aggregator/alert"
	"github.com/httpctl/httpctl/aggregator/baseline"
	"github.com/httpctl/httpctl/aggregator/store"
)

// CheckState returns why a value of the store's state cannot be read, if it is one that a judge
// keeps. The error wraps store.ErrVersion for what a newer program wrote.
func CheckState(key string, value []byte) (err error) {
	switch {
	case strings.HasPrefix(key, "baseline/"):
		_, err = baseline.Decode(value)
	case strings.HasPrefix(key, "verdict/"):
		_, err = alert.Decode(value)
	}
	if errors.Is(err, baseline.ErrVersion) || errors.Is(err, alert.ErrVersion) {
		return fmt.Errorf("%w: %q: %v", store.ErrVersion, key, err)
	}
	return err
}
