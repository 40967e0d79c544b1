package narread

import "errors"

// table is the layout of blocks that are packed one by one, and where they lie
// in the file.
type table struct {
	starts
	f       *file
	dec     *decoders
	off     []int64  // of each block in the file
	packed  []uint32 // size of each block there
	largest int64    // content of the largest block
	lost    error    // why there are no more blocks though there should be, or what follows them
}

func newTable(f *file, dec *decoders) table { return table{starts: starts{0}, f: f, dec: dec} }

// packed is a container that has a table.
type packed interface {
	container
	places() *table
}

func (t *table) places() *table { return t }

// add appends a block. One without content holds nothing to read.
func (t *table) add(off int64, packed uint32, content int64) {
	if content == 0 {
		return
	}
	t.off = append(t.off, off)
	t.packed = append(t.packed, packed)
	t.starts = append(t.starts, t.starts[len(t.starts)-1]+content)
	t.largest = max(t.largest, content)
}

// missing returns what is wrong with a block that stands for lost ones, or
// behind the last one.
func (t *table) missing(i int) error {
	if i >= len(t.off) {
		return t.lost
	}
	return nil
}

// cut makes all behind the first n blocks one that is missing.
func (t *table) cut(n int, narSize int64) {
	t.off, t.packed, t.starts = t.off[:n], t.packed[:n], append(t.starts[:n+1:n+1], narSize)
}

// load reads n bytes from where block i begins. The caller gives the buffer
// back.
func (t *table) load(i, n int) (*buffer, error) {
	buf := t.dec.buffers.get(n)
	if err := t.f.read(buf.b, t.off[i]); err != nil {
		t.dec.buffers.put(buf)
		return nil, err
	}
	return buf, nil
}

func (t *table) length(i int) int64 { return t.starts[i+1] - t.starts[i] }

// maxPacked bounds the size of a block in the file by that of its content. An
// encoder of zstd adds 3 bytes to each 128 KiB that do not compress, one of xz to
// each 64 KiB; more is allowed.
func maxPacked(content int64) int64 { return content + content/64 + 1024 }

// maxCount bounds the number of blocks, and so the memory for their table, which
// is 20 bytes a block: 1 TiB in frames of 256 KiB.
func maxCount(narSize int64) int { return int(min(narSize/1024+64, 1<<22)) }

// errNoFrames says that a file is no row of blocks of known and bounded sizes.
var errNoFrames = errors.New("no blocks of known size")
