package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clientArg as first argument makes this program a client of a mount, or a
// decoder: what works is a process of its own, so that its CPU time is known.
const clientArg = "client"

// client runs "read LIST", which reads the files that are named in a file, one
// a line, or "random FILE", which reads pages here and there: with system calls
// directly, as what costs is to be the file system. Or it decodes an .xz file.
func client(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("the client takes 2 arguments, not %q", args)
	}
	switch args[0] {
	case "read":
		return readFiles(args[1])
	case "random":
		return readRandomly(args[1])
	case "blocks":
		return decodeBlocks(args[1])
	case "stream":
		return decodeStream(args[1], ownXz)
	case "ulikunitz":
		return decodeStream(args[1], ulikunitzXz)
	}
	return fmt.Errorf("the client cannot %q", args[0])
}

func readFiles(list string) error {
	names, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10) // as cat's
	for line := range strings.Lines(string(names)) {
		name := strings.TrimSuffix(line, "\n")
		if err := readFile(name, buf); err != nil {
			return &os.PathError{Op: "read", Path: name, Err: err}
		}
	}
	return nil
}

func readFile(name string, buf []byte) error {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for {
		n, err := syscall.Read(fd, buf)
		if n <= 0 || err != nil {
			return err
		}
	}
}

// The kinds of random reads, by what had been read before.
const (
	blockMiss = iota // nothing near
	blockHit         // something in the same block of the archive
	pageHit          // the same page
	readKinds
)

var readKindNames = [readKinds]string{"block miss", "decoded block", "page cache"}

const (
	page   = 4 << 10
	stride = 512 << 10 // two of our blocks: see readRandomly
	spread = 220 << 10
)

// readRandomly reads single pages in random order, and prints for each stride
// of the file how long the three kinds of reads took, in nanoseconds.
//
// Where blocks begin is unknown. What is read in two strides is more than a
// block apart, so the first read is a miss. The page of the second read lies
// between two that were read before it, so it is in a block of one of these.
func readRandomly(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	r := rand.New(rand.NewPCG(1, 2)) // the same for all
	for _, i := range r.Perm(int(info.Size() / stride)) {
		at := int64(i)*stride + r.Int64N(spread/page)*page
		var took [readKinds]time.Duration
		for _, read := range []struct {
			kind int
			at   int64
		}{{blockMiss, at}, {-1, at + 8*page}, {blockHit, at + 4*page}, {pageHit, at}} {
			d, err := readPage(int(f.Fd()), read.at)
			if err != nil {
				return &os.PathError{Op: "read", Path: name, Err: err}
			}
			if read.kind >= 0 {
				took[read.kind] = d
			}
		}
		fmt.Fprintln(out, int64(took[blockMiss]), int64(took[blockHit]), int64(took[pageHit]))
	}
	return out.Flush()
}

func readPage(fd int, at int64) (time.Duration, error) {
	var buf [page]byte
	start := time.Now()
	n, err := syscall.Pread(fd, buf[:], at)
	took := time.Since(start)
	if err == nil && n != page {
		err = fmt.Errorf("got %d bytes", n)
	}
	return took, err
}

// parseLatencies reads what readRandomly prints.
func parseLatencies(out string) (l [readKinds][]time.Duration, err error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) != readKinds {
			return l, fmt.Errorf("unexpected answer %q of the client", line)
		}
		for kind, field := range fields {
			ns, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return l, err
			}
			l[kind] = append(l[kind], time.Duration(ns))
		}
	}
	return l, nil
}
