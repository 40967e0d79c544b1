package xz

// Block is where a block lies, and how large it is.
type Block struct {
	Offset   int64 // of its header in the file
	Unpadded int64 // of header, data and check, which is the "Unpadded Size" of the index
	Size     int64 // of its content
	Check    Check // of its stream
}

// Stored returns how many bytes the block takes in the file.
func (b Block) Stored() int64 { return b.Unpadded + int64(padding(b.Unpadded)) }

// maxFlat bounds the content of a block that is decoded at once.
const maxFlat = 1 << 30

// Decoder decodes blocks. It keeps some 100 KiB between calls, and may be used
// by one goroutine at a time. The zero value is ready.
type Decoder struct{ lzma2 }

// Block decodes the block that src holds, all b.Stored() bytes of it, to dst,
// which is of b.Size bytes. It verifies everything but where the block lies.
// When it fails, dst may hold anything. Its errors are not of type *Error, as
// they do not know where in the block they are. It needs no memory for the
// dictionary, however large, as dst is one.
func (d *Decoder) Block(b Block, dst, src []byte) error {
	checkSize := int64(b.Check.Size())
	dataEnd := int(b.Unpadded - checkSize)
	if int64(len(src)) != b.Stored() || int64(len(dst)) != b.Size || len(dst) > maxFlat || len(src) == 0 {
		return errMismatch
	}
	n := blockHeaderSize(src[0])
	if src[0] == 0 || n >= dataEnd {
		return errMismatch
	}
	h, err := parseBlockHeader(src[:n])
	if err != nil {
		return err
	}
	if !h.matches(int64(dataEnd-n), b.Size) {
		return errMismatch
	}
	d.begin(h.dict)
	if err := d.flat(dst, src[n:], dataEnd-n); err != nil {
		return err
	}
	checkAt := len(src) - int(checkSize)
	if !zero(src[dataEnd:checkAt]) {
		return errPadding
	}
	for _, f := range h.filters {
		f.undo(dst)
	}
	k := newChecker(b.Check)
	if k.write(dst); !k.matches(src[checkAt:]) {
		return errCheck
	}
	return nil
}

// matches compares what the header says about sizes.
func (h *blockHeader) matches(packed, unpacked int64) bool {
	return (h.packed < 0 || h.packed == packed) && (h.unpacked < 0 || h.unpacked == unpacked)
}
