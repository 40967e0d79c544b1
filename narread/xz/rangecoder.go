package xz

// Constants of the range coder and its adaptive probabilities.
const (
	topValue   = 1 << 24 // when the range is narrower, it takes in a byte
	modelBits  = 11
	modelTotal = 1 << modelBits
	modelInit  = modelTotal / 2
	moveBits   = 5

	// maxSymbol is how many bytes a literal or a match, and the end of a chunk
	// after it, take in at most. A match has 22 modelled bits, which narrow the
	// range by less than 6 bits each, and 26 direct ones: 20 bytes.
	maxSymbol = 32
)

// model is the probability that a bit is 0, of modelTotal.
type model = uint16

// rangeDecoder is the state of the range coder. It is handed on by value, so
// that the functions that decode keep it in registers; the compiler inlines
// normalize, bit and masked into them.
type rangeDecoder struct {
	width, code uint32
	in          int // next byte of the source
}

// normalize takes in a byte if it is time to. It belongs before every bit.
func (rc rangeDecoder) normalize(src []byte) rangeDecoder {
	if rc.width < topValue {
		rc.width <<= 8
		rc.code = rc.code<<8 | uint32(src[rc.in])
		rc.in++
	}
	return rc
}

// bit decodes a bit by its model, and adapts that. It is for bits that decide
// what comes next, which the processor may guess.
func (rc rangeDecoder) bit(m *model) (rangeDecoder, bool) {
	v := uint32(*m)
	bound := rc.width >> modelBits * v
	if rc.code < bound {
		rc.width = bound
		*m = model(v + (modelTotal-v)>>moveBits)
		return rc, false
	}
	rc.width -= bound
	rc.code -= bound
	*m = model(v - v>>moveBits)
	return rc, true
}

// masked is bit without a branch, for bits of numbers, which cannot be guessed:
// all ones for 1. The arithmetic is such that few operations lie between one
// bit and the next.
func (rc rangeDecoder) masked(m *model) (rangeDecoder, uint32) {
	v := uint32(*m)
	bound := rc.width >> modelBits * v
	one := uint32((int64(bound) + ^int64(rc.code)) >> 63) // bound - code - 1 < 0
	*m = adapted(v, one)
	rc.code -= bound & one
	rc.width = bound + (rc.width-bound-bound)&one
	return rc, one
}

// adapted returns v after a bit: v - v>>moveBits, or v + (modelTotal-v)>>moveBits.
func adapted(v, one uint32) model {
	const towardsTotal = 1<<32 - modelTotal + 1<<moveBits - 1
	return model(v - uint32(int32(v+towardsTotal&^one)>>moveBits))
}

// tree decodes a number of n bits, the highest first.
func (rc rangeDecoder) tree(src []byte, models []model, n uint) (rangeDecoder, uint32) {
	var one uint32
	sym := uint32(1)
	for range n {
		rc, one = rc.normalize(src).masked(&models[sym])
		sym = sym<<1 - one
	}
	return rc, sym - 1<<n
}

// reverse decodes a number of n bits, the lowest first.
func (rc rangeDecoder) reverse(src []byte, models []model, n uint) (rangeDecoder, uint32) {
	var one uint32
	sym, v := uint32(1), uint32(0)
	for i := range n {
		rc, one = rc.normalize(src).masked(&models[sym])
		sym = sym<<1 - one
		v |= one & (1 << i)
	}
	return rc, v
}

// direct decodes a number of n bits that have no model.
func (rc rangeDecoder) direct(src []byte, n uint) (rangeDecoder, uint32) {
	v := uint32(0)
	for range n {
		rc = rc.normalize(src)
		rc.width >>= 1
		rc.code -= rc.width
		zero := uint32(int32(rc.code) >> 31) // all ones for 0
		rc.code += rc.width & zero
		v = v<<1 + 1 + zero
	}
	return rc, v
}
