package disk

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// ReadNames returns the names in a directory, in no order. What is no directory
// is an error at once, a pipe as well.
func ReadNames(dir string) ([]string, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// IsTemp reports whether a file is called as temporary files in a backup are.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, TempPrefix) && strings.HasSuffix(name, TempSuffix)
}

// IsNotDir reports whether an error says that a file is where a directory should
// be.
func IsNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// IsFile reports whether a name leads to a regular file.
func IsFile(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}
