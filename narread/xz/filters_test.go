package xz

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// machineCode returns n bytes full of what the BCJ filters look for.
func machineCode(n int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		v := r.Uint32()
		high := byte(0)
		if v&1 != 0 {
			high = 0xff
		}
		switch r.IntN(10) {
		case 0: // x86, some of them closer than an instruction is long
			b = append(b, 0xe8|byte(v>>1&1), byte(v>>8), byte(v>>16), byte(v>>24), high)
		case 1:
			b = append(b, 0xe8, byte(v>>8), 0xe9, high, byte(v>>24), high)[:len(b)+1+r.IntN(6)]
		case 2:
			b = binary.BigEndian.AppendUint32(b, 0x48000001|v&0x03fffffc)
		case 3:
			b = binary.LittleEndian.AppendUint32(b, 0xeb000000|v&0xffffff)
		case 4:
			b = binary.LittleEndian.AppendUint32(b, 0xf800f000|v&0x07ff07ff)
		case 5:
			b = binary.BigEndian.AppendUint32(b, [2]uint32{0x40000000, 0x7fc00000}[v>>31]|v&0x3fffff)
		case 6:
			b = binary.LittleEndian.AppendUint32(b, 0x94000000|v&0x03ffffff)
		case 7:
			b = binary.LittleEndian.AppendUint32(b, 0x90000000|v&0x60f0001f|uint32(high)&7<<21)
		case 8: // br.call of IA-64 in all slots
			for len(b)%16 != 0 {
				b = append(b, 0)
			}
			bundle := uint64(0x16) | uint64(5)<<42 | uint64(v)<<18&(1<<41)
			b = binary.LittleEndian.AppendUint64(b, bundle)
			b = binary.LittleEndian.AppendUint64(b, uint64(5)<<19|uint64(5)<<60|uint64(v)<<24)
		case 9:
			for range 20 {
				b = append(b, "\xe8\xe9\x00\xff\x01"[r.IntN(5)])
			}
		}
	}
	return b[:n]
}

// TestFilters decodes what the xz program has encoded with filters.
func TestFilters(t *testing.T) {
	for _, filters := range [][]string{
		{"--x86"}, {"--powerpc"}, {"--ia64"}, {"--arm"}, {"--armthumb"}, {"--sparc"}, {"--arm64"},
		{"--x86=start=4294967290"}, {"--ia64=start=160"}, {"--arm64=start=4096"}, {"--armthumb=start=2"},
		{"--delta"}, {"--delta=dist=3"}, {"--delta=dist=256"}, {"--delta=dist=255"},
		{"--x86", "--delta=dist=4"}, {"--delta=dist=2", "--arm", "--x86"}, {"--ia64", "--x86", "--delta"},
	} {
		for _, n := range []int{0, 1, 4, 5, 17, 100_003} {
			in := machineCode(n)
			args := append(append([]string{"--check=sha256", "--block-size=70001"}, filters...), "--lzma2=preset=0")
			wantContent(t, fmt.Sprint(filters, n), pack(t, in, args...), in)
		}
	}
}
