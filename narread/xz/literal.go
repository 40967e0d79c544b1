package xz

// literalModels are those of one context: of plain literals, and, twice, of
// literals beside a byte that they are expected to differ from.
type literalModels [0x300]model

// literals decodes literals up to the next match, whose first bit it takes
// too, or up to the end of the chunk: of its content, len(buf), or of its data.
func (d *lzma) literals(buf []byte, pos, base int, src []byte, end int, rc rangeDecoder) (_ rangeDecoder, _ int, match bool) {
	state, prev := d.state, uint32(0)
	if pos > base {
		prev = uint32(buf[pos-1])
	}
	for pos < len(buf) && rc.in <= end {
		at := uint32(pos - base)
		rc, match = rc.normalize(src).bit(&d.isMatch[state&15][at&d.posMask&15])
		if match {
			break
		}
		m := &d.literal[((at&d.literalMask)<<d.contextBits+prev>>(8-d.contextBits))&15]
		if state < afterMatch {
			rc, prev = literal(src, rc, m)
		} else {
			rc, prev = matchedLiteral(src, rc, m, uint32(buf[pos-int(d.rep0)-1]))
		}
		buf[pos] = byte(prev)
		pos++
		state = nextAfterLiteral[state&15]
	}
	d.state = state
	return rc, pos, match
}

// literal decodes a byte. While it decides a bit, it fetches both models that
// the next bit may have.
func literal(src []byte, rc rangeDecoder, m *literalModels) (rangeDecoder, uint32) {
	sym := uint32(1)
	v := uint32(m[1])
	for sym < 0x100 {
		rc = rc.normalize(src)
		v0, v1 := uint32(m[sym<<1]), uint32(m[sym<<1+1])
		bound := rc.width >> modelBits * v
		one := uint32((int64(bound) + ^int64(rc.code)) >> 63)
		m[sym] = adapted(v, one)
		rc.code -= bound & one
		rc.width = bound + (rc.width-bound-bound)&one
		sym = sym<<1 - one
		v = v0 ^ (v0^v1)&one
	}
	return rc, sym & 0xff
}

// matchedLiteral decodes a byte beside the one that a match would have brought.
func matchedLiteral(src []byte, rc rangeDecoder, m *literalModels, beside uint32) (rangeDecoder, uint32) {
	var one uint32
	sym, offset := uint32(1), uint32(0x100) // offset 0: the bits have parted
	for sym < 0x100 {
		beside <<= 1
		bit := beside & offset
		rc, one = rc.normalize(src).masked(&m[offset+bit+sym])
		sym = sym<<1 - one
		offset &= ^(bit ^ one)
	}
	return rc, sym & 0xff
}
