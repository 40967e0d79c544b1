package xz

const (
	posStates  = 16 // at most: positions modulo 1, 2, 4, 8 or 16
	minMatch   = 2
	afterMatch = 7 // states from here on follow a match
)

// nextAfterLiteral has the state after a literal for each of the 12 states. (The
// compiler sees that 16 are enough.)
var nextAfterLiteral = [16]uint32{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}

// lzma is the state of an LZMA decoder apart from its range coder: what one
// chunk of LZMA2 leaves to the next.
type lzma struct {
	state                  uint32
	rep0, rep1, rep2, rep3 uint32 // the last distances, less one

	contextBits          uint32 // lc
	literalMask, posMask uint32 // from lp and pb

	isMatch    [16][posStates]model
	isRep0Long [16][posStates]model
	isRep      [16]model
	isRepG0    [16]model
	isRepG1    [16]model
	isRepG2    [16]model
	distSlot   [4][64]model
	distLow    [128]model
	distAlign  [16]model
	length     lengthModels
	repLength  lengthModels
	literal    [16]literalModels // of which 1<<(lc+lp) are in use
}

// lengthModels are those of the length of a match.
type lengthModels struct {
	choice, choice2 model
	low, mid        [posStates][8]model
	high            [256]model
}

// chunk decodes one chunk, which lies in src[:end], to buf[pos:]. The
// dictionary is at most dict bytes before, back to base. (Base may be negative:
// what it was is no longer in buf, and does not belong to these dict bytes.)
// There must be maxSymbol bytes of anything behind the chunk.
func (d *lzma) chunk(buf []byte, pos, base int, dict uint32, src []byte, end int) error {
	if end < 5 || src[0] != 0 {
		return errData
	}
	src = src[:end+maxSymbol]
	rc := rangeDecoder{width: 0xffffffff, in: 5}
	for _, b := range src[1:5] {
		rc.code = rc.code<<8 | uint32(b)
	}
	for {
		var match bool
		if rc, pos, match = d.literals(buf, pos, base, src, end, rc); !match {
			break
		}
		var n int
		rc, n = d.match(src, rc, uint32(pos-base))
		if d.rep0 >= min(uint32(pos-base), dict) || n > len(buf)-pos {
			return errData
		}
		copyMatch(buf, pos, int(d.rep0)+1, n)
		pos += n
	}
	if rc = rc.normalize(src); rc.in != end || rc.code != 0 {
		return errData
	}
	return nil
}

func copyMatch(buf []byte, pos, dist, n int) {
	from, to := buf[pos-dist:pos-dist+n], buf[pos:pos+n]
	if dist >= n {
		copy(to, from)
		return
	}
	for i := range to { // they overlap: what is written is read again
		to[i] = from[i]
	}
}

// match decodes what follows the first bit of a match at the given position.
// It returns its length, and sets rep0 to its distance, less one.
func (d *lzma) match(src []byte, rc rangeDecoder, at uint32) (rangeDecoder, int) {
	state, posState := d.state&15, at&d.posMask&15
	rc, rep := rc.normalize(src).bit(&d.isRep[state])
	if rep {
		return d.repeated(src, rc, state, posState)
	}
	d.rep3, d.rep2, d.rep1 = d.rep2, d.rep1, d.rep0
	d.state = 7
	if state >= afterMatch {
		d.state = 10
	}
	rc, n := d.length.decode(src, rc, posState)
	rc, d.rep0 = d.distance(src, rc, n)
	return rc, int(n) + minMatch
}

// repeated decodes a match at one of the last four distances.
func (d *lzma) repeated(src []byte, rc rangeDecoder, state, posState uint32) (rangeDecoder, int) {
	d.state = 8
	if state >= afterMatch {
		d.state = 11
	}
	rc, other := rc.normalize(src).bit(&d.isRepG0[state])
	if other {
		rc = d.rotate(src, rc, state)
	} else {
		var long bool
		if rc, long = rc.normalize(src).bit(&d.isRep0Long[state][posState]); !long {
			d.state++
			if state >= afterMatch {
				d.state = 11
			}
			return rc, 1
		}
	}
	rc, n := d.repLength.decode(src, rc, posState)
	return rc, int(n) + minMatch
}

// rotate decodes which of rep1, rep2 and rep3 comes first now.
func (d *lzma) rotate(src []byte, rc rangeDecoder, state uint32) rangeDecoder {
	rc, more := rc.normalize(src).bit(&d.isRepG1[state])
	if !more {
		d.rep0, d.rep1 = d.rep1, d.rep0
		return rc
	}
	rc, more = rc.normalize(src).bit(&d.isRepG2[state])
	if !more {
		d.rep0, d.rep1, d.rep2 = d.rep2, d.rep0, d.rep1
		return rc
	}
	d.rep0, d.rep1, d.rep2, d.rep3 = d.rep3, d.rep0, d.rep1, d.rep2
	return rc
}

// decode decodes a length, less minMatch.
func (l *lengthModels) decode(src []byte, rc rangeDecoder, posState uint32) (rangeDecoder, uint32) {
	rc, more := rc.normalize(src).bit(&l.choice)
	if !more {
		return rc.tree(src, l.low[posState&15][:], 3)
	}
	var n uint32
	if rc, more = rc.normalize(src).bit(&l.choice2); !more {
		rc, n = rc.tree(src, l.mid[posState&15][:], 3)
		return rc, n + 8
	}
	rc, n = rc.tree(src, l.high[:], 8)
	return rc, n + 16
}

// distance decodes the distance, less one, of a match of n+minMatch bytes.
func (d *lzma) distance(src []byte, rc rangeDecoder, n uint32) (rangeDecoder, uint32) {
	rc, slot := rc.tree(src, d.distSlot[min(n, 3)][:], 6)
	if slot < 4 {
		return rc, slot
	}
	bits := uint(slot>>1 - 1)
	dist := (2 | slot&1) << bits
	var low uint32
	if slot < 14 {
		rc, low = rc.reverse(src, d.distLow[dist-slot:], bits)
		return rc, dist + low
	}
	rc, low = rc.direct(src, bits-4)
	dist += low << 4
	rc, low = rc.reverse(src, d.distAlign[:], 4)
	return rc, dist + low
}

// reset sets everything as it is at the beginning, with the given parameters.
func (d *lzma) reset(lc, lp, pb uint32) {
	d.state, d.rep0, d.rep1, d.rep2, d.rep3 = 0, 0, 0, 0, 0
	d.contextBits, d.literalMask, d.posMask = lc, 1<<lp-1, 1<<pb-1
	for i := range d.isMatch {
		fill(d.isMatch[i][:])
		fill(d.isRep0Long[i][:])
	}
	for i := range d.distSlot {
		fill(d.distSlot[i][:])
	}
	for i := range 1 << (lc + lp) {
		fill(d.literal[i][:])
	}
	for _, m := range [][]model{d.isRep[:], d.isRepG0[:], d.isRepG1[:], d.isRepG2[:], d.distLow[:], d.distAlign[:]} {
		fill(m)
	}
	d.length.reset()
	d.repLength.reset()
}

func (l *lengthModels) reset() {
	l.choice, l.choice2 = modelInit, modelInit
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

func fill(m []model) {
	for i := range m {
		m[i] = modelInit
	}
}
