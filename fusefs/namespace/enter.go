package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter is what the child of Run does: it makes the namespace, in which it is
// already, what it has to be, and becomes the command. It returns only if that
// fails: nil if Run has been told why, an error if this process was not started
// by Run.
func Enter() error {
	// Capabilities are those of a thread.
	runtime.LockOSThread()
	spec, reports := os.NewFile(specFD, "spec"), json.NewEncoder(os.NewFile(reportFD, "report"))
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(reportFD)
	var c Command
	if err := json.NewDecoder(spec).Decode(&c); err != nil {
		return fmt.Errorf("this command is for narvault itself: %w", err)
	}
	if err := c.mounts(); err != nil {
		return reports.Encode(report{Failed: &StartError{Text: explain(err)}})
	}
	if err := reports.Encode(report{Entered: true}); err != nil {
		return err
	}
	io.Copy(io.Discard, spec) // until it is closed
	return reports.Encode(report{Failed: c.become()})
}

// become makes this process the command.
func (c Command) become() *StartError {
	if err := os.Chdir(c.Dir); err != nil {
		c.Dir = "/"
		if err := os.Chdir("/"); err != nil {
			return &StartError{Text: err.Error()}
		}
	}
	// Run has asked for this, too, but for another thread than the one that becomes
	// the command.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return &StartError{Text: fmt.Sprintf("ask to be killed with narvault: %v", err)}
	}
	// What follows shall not be able to do more than whoever started it.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return &StartError{Text: fmt.Sprintf("drop capabilities: %v", err)}
	}
	file, failed := c.find()
	if failed != nil {
		return failed
	}
	err := syscall.Exec(file, c.Args, c.Env)
	return c.notExecuted(file, err)
}

// notExecuted says why a file that is there was not executed.
func (c Command) notExecuted(file string, err error) *StartError {
	text := fmt.Sprintf("%s: %v", file, err)
	if errors.Is(err, fs.ErrNotExist) {
		text = fmt.Sprintf("%s: the interpreter or loader that it names is not there", file)
	}
	return &StartError{Text: text, Kind: NotExecutable}
}

// find looks for the command as a shell does.
func (c Command) find() (string, *StartError) {
	name := c.Args[0]
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	var denied *StartError
	for _, dir := range filepath.SplitList(c.env("PATH")) {
		if dir == "" {
			dir = "."
		}
		file := filepath.Join(dir, name)
		failed := executable(file)
		if failed == nil {
			return file, nil
		}
		if failed.Kind == NotExecutable && denied == nil {
			denied = failed
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{Text: fmt.Sprintf("%s: there is no such command in PATH", name), Kind: NotFound}
}

// executable returns why a file cannot be executed, or nil if it looks as if.
func executable(file string) *StartError {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return &StartError{Text: fmt.Sprintf("%s: there is no such file", file), Kind: NotFound}
	case err != nil:
		return &StartError{Text: err.Error(), Kind: NotExecutable}
	case st.IsDir():
		return &StartError{Text: fmt.Sprintf("%s: is a directory", file), Kind: NotExecutable}
	case st.Mode()&0o111 == 0:
		return &StartError{Text: fmt.Sprintf("%s: is not executable", file), Kind: NotExecutable}
	}
	return nil
}

// env returns a variable of the command's environment; the last one counts.
func (c Command) env(key string) string {
	for i := len(c.Env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(c.Env[i], key+"="); ok {
			return value
		}
	}
	return ""
}
