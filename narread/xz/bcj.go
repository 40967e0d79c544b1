package xz

import (
	"encoding/binary"
	"math/bits"
)

// bcj undoes a branch/call/jump filter: the targets of calls, which the encoder
// has made absolute because equal ones compress better, become relative to the
// instruction again.
type bcj struct {
	pos     uint32 // of the next byte, from where the encoder began to count
	convert func(b []byte, pos uint32) int
}

func (f *bcj) undo(b []byte) int {
	n := f.convert(b, f.pos)
	f.pos += uint32(n)
	return n
}

// newBCJ returns the filter with the given id, which counts from start.
func newBCJ(id int64, start uint32) (filter, error) {
	f, align := &bcj{pos: start}, uint32(4)
	switch id {
	case idX86:
		f.convert, align = new(x86).convert, 1
	case idPowerPC:
		f.convert = powerPC
	case idIA64:
		f.convert, align = ia64, 16
	case idARM:
		f.convert = arm
	case idARMThumb:
		f.convert, align = armThumb, 2
	case idSPARC:
		f.convert = sparc
	case idARM64:
		f.convert = arm64
	default:
		return nil, unsupported("filter %#x", id)
	}
	if start%align != 0 {
		return nil, unsupported("filter %#x from offset %d", id, start)
	}
	return f, nil
}

// x86 converts CALL and JMP. What looks like one may be part of another
// instruction; mask has a bit for each of the last three bytes, the lowest for
// the last one, that looked like one and was left alone.
type x86 struct{ mask uint32 }

func (f *x86) convert(b []byte, pos uint32) int {
	i := 0
	for i+5 <= len(b) {
		opcode := b[i]&0xfe == 0xe8
		if opcode && highByte(b[i+4]) && f.plausible(b[i:]) {
			target := f.target(binary.LittleEndian.Uint32(b[i+1:]), pos+uint32(i)+5)
			binary.LittleEndian.PutUint32(b[i+1:], target)
			f.mask = 0
			i += 5
			continue
		}
		f.mask = f.mask << 1 & 7
		if opcode {
			f.mask |= 1
		}
		i++
	}
	return i
}

// highByte reports whether b may be the highest byte of a target: 16 MiB back
// or forth.
func highByte(b byte) bool { return b == 0 || b == 0xff }

// plausible decides about an opcode that follows others closely.
func (f *x86) plausible(b []byte) bool {
	if f.mask == 0 {
		return true
	}
	return bits.OnesCount32(f.mask) == 1 && !highByte(b[4-bits.Len32(f.mask)])
}

// target returns what the encoder took for v, which it must have been able to
// tell from what it leaves alone. A second turn is the last one: as the byte in
// question was no highByte in v, it is none in the second t either.
func (f *x86) target(v, next uint32) uint32 {
	low := 8 * bits.Len32(f.mask)
	for {
		t := v - next
		if f.mask == 0 || !highByte(byte(t>>(24-low))) {
			return uint32(int32(t<<7) >> 7)
		}
		v = t ^ (1<<(32-low) - 1)
	}
}

// words calls convert for each aligned word of four bytes.
func words(b []byte, order binary.ByteOrder, pos uint32, convert func(word, pos uint32) uint32) int {
	n := len(b) &^ 3
	for i := 0; i < n; i += 4 {
		v := order.Uint32(b[i:])
		if w := convert(v, pos+uint32(i)); w != v {
			order.PutUint32(b[i:], w)
		}
	}
	return n
}

func powerPC(b []byte, pos uint32) int {
	return words(b, binary.BigEndian, pos, func(v, pos uint32) uint32 {
		if v&0xfc000003 != 0x48000001 { // BL
			return v
		}
		return 0x48000001 | (v-pos)&0x03fffffc
	})
}

func arm(b []byte, pos uint32) int {
	return words(b, binary.LittleEndian, pos, func(v, pos uint32) uint32 {
		if v>>24 != 0xeb { // BL
			return v
		}
		return 0xeb000000 | (v-(pos+8)>>2)&0xffffff
	})
}

func sparc(b []byte, pos uint32) int {
	return words(b, binary.BigEndian, pos, func(v, pos uint32) uint32 {
		if v>>22 != 0x100 && v>>22 != 0x1ff { // CALL
			return v
		}
		t := v - pos>>2
		return 0x40000000 | -(t>>22&1)<<22&0x3fffffff | t&0x3fffff
	})
}

func arm64(b []byte, pos uint32) int {
	return words(b, binary.LittleEndian, pos, func(v, pos uint32) uint32 {
		switch {
		case v>>26 == 0x25: // BL
			return 0x94000000 | (v-pos>>2)&0x03ffffff
		case v&0x9f000000 == 0x90000000: // ADRP
			t := v>>29&3 | v>>3&0x1ffffc
			if (t+0x20000)&0x1c0000 != 0 { // further than 512 MiB
				return v
			}
			t -= pos >> 12
			return v&0x9000001f | t&3<<29 | t&0x3fffc<<3 | -(t&0x20000)&0xe00000
		}
		return v
	})
}

func armThumb(b []byte, pos uint32) int {
	i := 0
	for i+4 <= len(b) {
		v := binary.LittleEndian.Uint32(b[i:])
		if v&0xf800f800 != 0xf800f000 { // the two halves of BL
			i += 2
			continue
		}
		t := v&0x7ff<<11 | v>>16&0x7ff
		t -= (pos + uint32(i) + 4) >> 1
		binary.LittleEndian.PutUint32(b[i:], 0xf800f000|t>>11&0x7ff|t&0x7ff<<16)
		i += 4
	}
	return i
}

// ia64Branches has, for each template of a bundle, a bit for each of its three
// slots that may hold a branch.
var ia64Branches = [32]byte{16: 4, 17: 4, 18: 6, 19: 6, 22: 7, 23: 7, 24: 4, 25: 4, 28: 4, 29: 4}

func ia64(b []byte, pos uint32) int {
	n := len(b) &^ 15
	for i := 0; i < n; i += 16 {
		for slot := range 3 {
			if ia64Branches[b[i]&31]>>slot&1 != 0 {
				ia64Slot(b[i:i+16], 5+41*slot, pos+uint32(i))
			}
		}
	}
	return n
}

// ia64Slot converts the instruction of 41 bits that begins at the given bit.
func ia64Slot(bundle []byte, bit int, pos uint32) {
	b := bundle[bit/8:][:6]
	v := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
	shift := bit % 8
	in := v >> shift
	if in>>37&15 != 5 || in>>9&7 != 0 { // br.call
		return
	}
	t := uint32(in>>13&0xfffff) | uint32(in>>36&1)<<20
	t -= pos >> 4
	in &^= 0x8fffff << 13
	in |= uint64(t&0xfffff)<<13 | uint64(t>>20&1)<<36
	v = v&(1<<shift-1) | in<<shift
	binary.LittleEndian.PutUint32(b, uint32(v))
	binary.LittleEndian.PutUint16(b[4:], uint16(v>>32))
}
