package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. Files, environment and flags write it as
// "64KiB", "32MiB", "1.5GiB" or a plain number of bytes.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var sizeUnits = []struct {
	name  string
	bytes Size
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}, {"", 1}}

// ParseSize reads a Size. White space around it and before the unit is
// ignored. Decimal units (kB, MB) are refused, because they are read both ways.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	fault := fmt.Errorf("%q is not a size: write bytes or a number with KiB, MiB or GiB, such as 64KiB", s)
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		number = strings.TrimSpace(number)
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			if n > math.MaxInt64/int64(u.bytes) || n < math.MinInt64/int64(u.bytes) {
				return 0, fmt.Errorf("%q is a larger size than this program can count", s)
			}
			return Size(n) * u.bytes, nil
		}
		if strings.Trim(number, "0123456789.") != "" {
			return 0, fault
		}
		f, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, fault
		}
		if f *= float64(u.bytes); f >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is a larger size than this program can count", s)
		}
		if f != math.Trunc(f) {
			return 0, fmt.Errorf("%q is not a whole number of bytes", s)
		}
		return Size(f), nil
	}
	return 0, fault
}

// String returns s in the largest unit that divides it; ParseSize reads it back.
func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := ParseSize(string(text))
	if err == nil {
		*s = n
	}
	return err
}

// ParseDuration reads a duration as time.ParseDuration does, and also whole
// days before the rest: "2d", "1d12h". A bare number other than 0 is refused.
func ParseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	var days time.Duration
	if number, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, durationFault(s)
		}
		days = time.Duration(n) * 24 * time.Hour
		if rest == "" {
			return days, nil
		}
		if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return 0, durationFault(s)
		}
		text = rest
	}
	d, err := time.ParseDuration(text)
	if err != nil || d > math.MaxInt64-days {
		return 0, durationFault(s)
	}
	return days + d, nil
}

func durationFault(s string) error {
	if _, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
		return fmt.Errorf("%q has no unit: write %ss, %sm or the like", s, s, s)
	}
	return fmt.Errorf("%q is not a duration: write a number with ms, s, m, h or d, such as 90s or 24h", s)
}

// FormatDuration writes d without zero units at its end: "2m", not "2m0s".
// ParseDuration reads it back.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
