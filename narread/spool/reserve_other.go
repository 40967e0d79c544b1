//go:build !linux

package spool

import "os"

// reserve tells others how large the file is going to be.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }
