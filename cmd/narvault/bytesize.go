package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag for a number of bytes: "64MiB", "64M" (both powers of
// 1024), "64MB" (of 1000), or plain bytes. It implements pflag.Value.
type byteSize int64

// Set parses a size.
func (s *byteSize) Set(text string) error {
	digits := strings.TrimRight(text, "kKMGTiB ")
	n, err := strconv.ParseFloat(digits, 64)
	unit := strings.TrimSpace(text[len(digits):])
	factor, ok := sizeUnit(unit)
	if n *= factor; err != nil || !ok || n < 0 || n >= math.MaxInt64 || math.IsNaN(n) {
		return fmt.Errorf("%q is no size such as 64MiB or 2G", text)
	}
	*s = byteSize(n)
	return nil
}

// sizeUnit returns what a unit stands for.
func sizeUnit(unit string) (factor float64, ok bool) {
	base := 1024.0
	switch prefix, suffix, _ := strings.Cut(unit, "B"); {
	case suffix != "":
		return 0, false
	case unit == "" || unit == "B":
		return 1, true
	case strings.HasSuffix(prefix, "i"):
		unit = prefix[:len(prefix)-1]
	case strings.HasSuffix(unit, "B"):
		base, unit = 1000, prefix
	}
	i := strings.Index("KMGT", strings.ToUpper(unit))
	if len(unit) != 1 || i < 0 {
		return 0, false
	}
	return math.Pow(base, float64(i+1)), true
}

// String writes a size as short as it can be parsed.
func (s byteSize) String() string {
	n, unit := int64(s), 0
	for n > 0 && n%1024 == 0 && unit < 4 {
		n /= 1024
		unit++
	}
	return strconv.FormatInt(n, 10) + [...]string{"", "KiB", "MiB", "GiB", "TiB"}[unit]
}

// Type names the argument in the help.
func (*byteSize) Type() string { return "size" }
