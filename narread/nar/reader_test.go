package nar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReaderHeaders(t *testing.T) {
	nar := magic(directory(
		in("a", directory(in("b", program("12345")), in("c", directory()))),
		in("d", link("a/b")),
		in("e", file("")),
	))
	nodes, r, err := parse(nar, ReaderOptions{Strict: true})
	must(t, err)
	want := []parsed{
		{Header{Depth: 0, Type: Directory}, ""},
		{Header{Depth: 1, Name: "a", Type: Directory}, ""},
		{Header{Depth: 2, Name: "b", Type: Regular, Executable: true, Size: 5, Offset: int64(bytes.Index(nar, []byte("12345")))}, "12345"},
		{Header{Depth: 2, Name: "c", Type: Directory}, ""},
		{Header{Depth: 1, Name: "d", Type: Symlink, Target: "a/b"}, ""},
		{Header{Depth: 1, Name: "e", Type: Regular, Offset: int64(len(nar) - 3*16)}, ""},
	}
	if fmt.Sprint(nodes) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", nodes, want)
	}
	if r.Offset() != int64(len(nar)) {
		t.Errorf("offset %d at the end, want %d", r.Offset(), len(nar))
	}
}

func TestReaderSlowly(t *testing.T) {
	want, _, err := parse(sample(), ReaderOptions{})
	must(t, err)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"byte by byte": iotest.OneByteReader, "half": iotest.HalfReader, "error with data": iotest.DataErrReader,
	} {
		r := NewReader(wrap(bytes.NewReader(sample())), ReaderOptions{Strict: true})
		for i := 0; ; i++ {
			h, err := r.Next()
			if err == io.EOF && i == len(want) {
				break
			}
			must(t, err)
			var contents strings.Builder
			if i%2 == 0 { // of the others the contents are left out
				_, err = io.CopyBuffer(struct{ io.Writer }{&contents}, struct{ io.Reader }{r}, make([]byte, 3))
				must(t, err)
			} else {
				contents.WriteString(want[i].contents)
			}
			if h != want[i].Header || contents.String() != want[i].contents {
				t.Errorf("%s: node %d is %+v with %q, want %+v", name, i, h, contents.String(), want[i])
			}
		}
	}
}

func TestReaderLeavesOutRest(t *testing.T) {
	contents := strings.Repeat("0123456789", 30000)
	nar := magic(directory(in("a", file(contents)), in("b", file("2"))))
	for _, read := range []int{0, 1, 7, streamBuffer - 1, streamBuffer, streamBuffer + 1, len(contents) - 1, len(contents)} {
		r := NewReader(bytes.NewReader(nar), ReaderOptions{})
		_, err := r.Next()
		must(t, err)
		_, err = r.Next()
		must(t, err)
		p := make([]byte, read)
		if _, err := io.ReadFull(r, p); err != nil || string(p) != contents[:read] {
			t.Errorf("read %d bytes: wrong contents, error %v", read, err)
		}
		if h, err := r.Next(); err != nil || h.Name != "b" {
			t.Errorf("after %d bytes: %+v, %v", read, h, err)
		}
	}
}

func TestReaderBuffered(t *testing.T) {
	stream := append(append(sample(), sample()...), "rest"...)
	src := bytes.NewReader(stream)
	var rest io.Reader = src
	for range 2 {
		r := NewReader(rest, ReaderOptions{})
		l, err := r.Listing()
		must(t, err)
		if l.NarSize() != int64(len(sample())) {
			t.Errorf("NAR of %d bytes, want %d", l.NarSize(), len(sample()))
		}
		rest = io.MultiReader(bytes.NewReader(r.Buffered()), rest)
	}
	if got, err := io.ReadAll(rest); string(got) != "rest" {
		t.Errorf("behind the NARs is %q, %v", got, err)
	}
}

func TestReaderErrorStays(t *testing.T) {
	want := errors.New("disk on fire")
	for n := range len(sample()) {
		r := NewReader(io.MultiReader(bytes.NewReader(sample()[:n]), iotest.ErrReader(want)), ReaderOptions{})
		_, err := r.Listing()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d", n)) {
			t.Fatalf("error %v, want %v at offset %d", err, want, n)
		}
		if _, err2 := r.Next(); err2 != err {
			t.Fatalf("then %v", err2)
		}
		if _, err2 := r.Read(make([]byte, 1)); err2 != err {
			t.Fatalf("Read returns %v", err2)
		}
	}
	r := NewReader(emptyReader{}, ReaderOptions{})
	if _, err := r.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader without progress: %v", err)
	}
}

// An emptyReader returns nothing and no error.
type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestTruncated(t *testing.T) {
	for n := range len(sample()) {
		cut := sample()[:n]
		_, _, strict := parse(cut, ReaderOptions{Strict: true})
		tolerant, _ := tolerantListing(cut)
		_, jumping := ReadListing(bytes.NewReader(cut), int64(n))
		_, absent := ReadListing(bytes.NewReader(cut), int64(len(sample())))
		for who, err := range map[string]error{"strict": strict, "tolerant": tolerant.err, "ReadListing": jumping, "file": absent} {
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d:", n)) && who != "file" {
				t.Fatalf("%d bytes, %s: error %v", n, who, err)
			}
		}
	}
}

// TestFlipped checks that a NAR with a wrong byte is refused, or is another
// NAR of the same size.
func TestFlipped(t *testing.T) {
	refused := 0
	for i := range sample() {
		for _, bit := range []byte{0x01, 0x20, 0x80, 0xff} {
			bad := sample()
			bad[i] ^= bit
			nodes, _, err := parse(bad, ReaderOptions{Strict: true})
			if err != nil {
				refused++
				continue
			}
			if again := rewrite(t, nodes); !bytes.Equal(again, bad) {
				t.Fatalf("byte %d ^ %#x: accepted, but not what it says", i, bit)
			}
			l, err := ReadListing(bytes.NewReader(bad), int64(len(bad)))
			must(t, err)
			checkListing(t, l)
		}
	}
	if total := 4 * len(sample()); refused < total*9/10 {
		t.Errorf("only %d of %d were refused", refused, total)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		nar  []byte
		want string
	}{
		{[]byte(strings.Repeat("x", 100)), `NAR at offset 0: not a NAR: it does not start with "nix-archive-1"`},
		{magic("(", "type", "fifo", ")"), `NAR at offset 56: expected "regular", got "fifo"`},
		{magic("(", "type", "directory", "entry", "(", "nom"), `NAR at offset 112: expected "name", got "nom"`},
		{magic(directory(in("a", file("")), in("a", file("")))), `NAR at offset 312: the name "a" twice`},
		{magic(directory(in("..", file("")))), `NAR at offset 128: the name ".."`},
		{magic(link(strings.Repeat("x", 5000))), `NAR at offset 88: a target of 5000 bytes, allowed are 4095`},
		{magic("(", strings.Repeat("x", 50)), `NAR at offset 40: expected "type", got a string of 50 bytes`},
		{nil, `NAR at offset 0: unexpected end`},
	}
	for _, tt := range tests {
		if _, _, err := parse(tt.nar, ReaderOptions{Strict: true}); err == nil || err.Error() != tt.want {
			t.Errorf("error %v\nwant  %s", err, tt.want)
		}
	}
}

// TestReaderMemory reads a NAR whose names are as deep and long as they may
// be, and one that is deeper.
func TestReaderMemory(t *testing.T) {
	deep := func(n int) []byte {
		node := file("")
		var b bytes.Buffer
		b.WriteString(tagMagic)
		for range n {
			b.WriteString(tagOpen + tagType + tagDirectory)
			b.Write(archive("entry", "(", "name", strings.Repeat("d", MaxName), "node"))
		}
		b.Write(archive(node))
		b.WriteString(strings.Repeat(seqEntryEnd, n))
		return b.Bytes()
	}
	l, r := tolerantListing(deep(MaxDepth))
	must(t, l.err)
	if r.Deviation() == nil || l.Deviation() != r.Deviation() || l.Len() != MaxDepth+1 {
		t.Errorf("%d entries, deviation %v", l.Len(), r.Deviation())
	}
	checkListing(t, l.Listing)
	l, _ = tolerantListing(deep(MaxDepth + 1))
	var fe *FormatError
	if !errors.As(l.err, &fe) {
		t.Errorf("deeper than allowed: error %v", l.err)
	}
}

func TestRandomNARs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		nar := magic(randomNode(rnd, 6))
		nodes, _, err := parse(nar, ReaderOptions{Strict: true})
		must(t, err)
		var b Builder
		for _, n := range nodes {
			must(t, b.Add(n.Header))
		}
		l, err := b.Listing()
		must(t, err)
		checkListings(t, nar, l)
	}
}
