package index

import "fmt"

// A DamageError says that a file of the index is not what it has to be. The
// index is then to be built anew; the cache it was made from may be all right.
type DamageError struct {
	File string // path of the file, or of the generation
	Err  error
}

func (e *DamageError) Error() string { return fmt.Sprintf("index %s: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

func damage(file, format string, args ...any) error {
	return &DamageError{File: file, Err: fmt.Errorf(format, args...)}
}

// A VersionError is the cause of a *DamageError about an index that is whole: another
// version of narvault made it, in a format that this one does not know.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("has format version %d, this narvault knows %d", e.Version, formatVersion)
}

// A NoListingError says that a record is without a listing: the archive could
// not be listed when the record was made. It may be possible now.
type NoListingError struct {
	Reason string
}

func (e *NoListingError) Error() string { return "index has no listing: " + e.Reason }
