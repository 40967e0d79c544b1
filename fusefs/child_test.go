package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain runs, in a child process, what must not run in the server.
func TestMain(m *testing.M) {
	mode := os.Getenv("FUSEFS_TEST_CHILD")
	if mode == "" {
		os.Exit(m.Run())
	}
	work := map[string]func(string) error{
		"mmap": childMmap, "holes": childHoles, "handle": childHandle, "open-handle": childOpenHandle, "seekdir": childSeekdir, "serve": childServe,
		"cached": childCached, "storm": childStorm, "reads": childReads, "xattr": childXAttr,
	}
	if err := work[mode](os.Args[len(os.Args)-1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func childCommand(mode, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], arg)
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_CHILD="+mode)
	return cmd
}

func child(t *testing.T, mode, arg string) string {
	t.Helper()
	out, _ := childCommand(mode, arg).CombinedOutput()
	return string(out)
}

func childMmap(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, content(st.Size())) {
		return errors.New("wrong bytes")
	}
	return nil
}

// childHoles asks where data and holes are: there are no holes.
func childHoles(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if off, err := unix.Seek(int(f.Fd()), 1000, unix.SEEK_DATA); off != 1000 || err != nil {
		return fmt.Errorf("SEEK_DATA: %d, %v", off, err)
	}
	if off, err := unix.Seek(int(f.Fd()), 1000, unix.SEEK_HOLE); off != size || err != nil {
		return fmt.Errorf("SEEK_HOLE: %d, %v, want %d", off, err, size)
	}
	if _, err := unix.Seek(int(f.Fd()), size, unix.SEEK_DATA); err != syscall.ENXIO {
		return fmt.Errorf("SEEK_DATA at the end: %v", err)
	}
	return nil
}

// childHandle prints the handle of a file.
func childHandle(file string) error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, file, 0)
	if err != nil {
		return fmt.Errorf("name_to_handle_at: %w", err)
	}
	fmt.Printf("%d %x\n", h.Type(), h.Bytes())
	return nil
}

// childOpenHandle prints the file whose handle is given with the mountpoint:
// "TYPE HEX DIR".
func childOpenHandle(arg string) error {
	var kind int32
	var handle []byte
	var dir string
	if _, err := fmt.Sscanf(arg, "%d %x %s", &kind, &handle, &dir); err != nil {
		return err
	}
	mount, err := os.Open(dir)
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), unix.NewFileHandle(kind, handle), unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open_by_handle_at: %w", err)
	}
	_, err = io.Copy(os.Stdout, os.NewFile(uintptr(fd), "handle"))
	return err
}

// childSeekdir reads a directory in small pieces, noting where each entry
// begins, and then goes back to each of these places.
func childSeekdir(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	type entry struct {
		name string
		off  int64 // of the next
	}
	next := func(size int) ([]entry, error) {
		buf := make([]byte, size)
		n, err := unix.Getdents(fd, buf)
		var all []entry
		for rest := buf[:max(n, 0)]; len(rest) > 0; {
			length := int(rest[16]) | int(rest[17])<<8
			var off int64
			for i := range 8 {
				off |= int64(rest[8+i]) << (8 * i)
			}
			name, _, _ := bytes.Cut(rest[19:length], []byte{0})
			all = append(all, entry{string(name), off})
			rest = rest[length:]
		}
		return all, err
	}
	var all []entry
	for {
		some, err := next(600)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	seen := make(map[string]bool)
	for i := 0; i < len(all)-1; i += 7 {
		if seen[all[i].name] {
			return fmt.Errorf("%q is there twice", all[i].name)
		}
		seen[all[i].name] = true
		if _, err := unix.Seek(fd, all[i].off, io.SeekStart); err != nil {
			return err
		}
		some, err := next(600)
		if err != nil {
			return err
		}
		if len(some) == 0 || some[0].name != all[i+1].name {
			return fmt.Errorf("at %d, after %q: %v, want %q", all[i].off, all[i].name, some, all[i+1].name)
		}
	}
	return nil
}

// childServe mounts a backup until it is killed.
func childServe(dir string) error {
	b := newMemBackup()
	s, err := Mount(b, dir, Options{})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return s.Wait(context.Background())
}

// childCached prints how much of a file is in the page cache.
func childCached(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	pages := make([]byte, (len(data)+4095)/4096)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		return errno
	}
	n := 0
	for _, p := range pages {
		n += int(p & 1)
	}
	fmt.Printf("%d MiB\n", n>>8)
	return nil
}

// childStorm reads a file again and again, past the page cache, while it gets
// thousands of signals.
func childStorm(file string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	done := make(chan struct{})
	sent := 0
	go func() {
		defer close(done)
		for range 3000 {
			unix.Tgkill(os.Getpid(), os.Getpid(), syscall.SIGUSR1)
			unix.Kill(os.Getpid(), syscall.SIGURG)
			sent++
		}
	}()
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	buf := aligned(1 << 20)
	want := content(1 << 20)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		n, err := unix.Pread(fd, buf, 0)
		if err != nil || !bytes.Equal(buf[:n], want[:n]) || n == 0 {
			return fmt.Errorf("after %d signals: read %d bytes, %v", sent, n, err)
		}
	}
	return nil
}

// childXAttr prints the names of all extended attributes, and one of them.
func childXAttr(file string) error {
	buf := make([]byte, 1000)
	n, err := unix.Listxattr(file, buf)
	if err != nil {
		return err
	}
	fmt.Print(string(bytes.ReplaceAll(buf[:n], []byte{0}, []byte{' '})))
	n, err = unix.Getxattr(file, "user.nix.narHash", buf)
	fmt.Println(string(buf[:max(n, 0)]))
	return err
}

// childReads reads a file again and again, past the page cache, until its
// standard input ends.
func childReads(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, os.Stdin)
	}()
	fmt.Println("ready")
	for buf := aligned(4096); ; {
		select {
		case <-ended:
			return nil
		default:
		}
		if _, err := unix.Pread(fd, buf, 0); err != nil {
			return err
		}
	}
}

// aligned returns a buffer of n bytes for reads past the page cache.
func aligned(n int) []byte {
	buf := make([]byte, n+4096)
	return buf[4096-uintptr(unsafe.Pointer(&buf[0]))%4096:][:n]
}
