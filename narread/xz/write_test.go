package xz

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"
)

// TestWrite makes files of what xz --format=raw returns, and has them read.
func TestWrite(t *testing.T) {
	in := content(100_000, 12)
	for _, c := range []Check{CheckNone, CheckCRC32, CheckCRC64, CheckSHA256} {
		for _, size := range []int{1, 4999, 40_000, 200_000} {
			s := NewStream(c)
			file := s.Begin()
			for at := 0; at < len(in); at += size {
				part := in[at:min(at+size, len(in))]
				if at > 0 && size == 1 {
					break
				}
				block := AppendBlock(nil, part, pack(t, part, "--format=raw", "--lzma2=preset=0,dict=1MiB"), c, 20)
				s.Add(block, len(part))
				file = append(file, block...)
			}
			end, err := s.End()
			must(t, err)
			file = append(file, end...)
			want := in
			if size == 1 {
				want = in[:1]
			}
			what := fmt.Sprint("check ", c, ", blocks of ", size)
			wantContent(t, what, file, want)
			cmd := exec.Command("xz", "-dc")
			cmd.Stdin = bytes.NewReader(file)
			if got, err := cmd.Output(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: xz -dc gives %d bytes, %v", what, len(got), err)
			}
		}
	}
	s := NewStream(CheckCRC64)
	file := s.Begin()
	end, err := s.End()
	must(t, err)
	wantContent(t, "no block", append(file, end...), nil)
}
