package narread

import (
	"fmt"
	"io"
)

// Decompress returns the content of a compressed file that is not a NAR, such as
// a build log, from its beginning to its end. Compression is named as in
// narinfos. The file has size bytes and is called name in errors; what is wrong
// with its content is a *DamageError. How long the content is, the caller has to
// bound. Closing it leaves src open.
func Decompress(src Source, size int64, name, compression string) (io.ReadCloser, error) {
	f := &file{src: src, size: size, name: name}
	format := labelled(compression)
	switch {
	case format == "":
		return nil, fmt.Errorf("read %s: compression %q is not known", name, compression)
	case format == formatNone:
		return io.NopCloser(&fileReader{f: f}), nil
	case size == 0: // which zstd's decoder takes for no frames
		return nil, f.damage(-1, 0, io.ErrUnexpectedEOF)
	}
	d := &decompressor{s: newStream(f, format, 0)}
	if err := guard(d.s.open); err != nil {
		d.s.close()
		return nil, d.s.failed(unexpected(err))
	}
	return d, nil
}

type decompressor struct{ s *stream }

func (d *decompressor) Read(p []byte) (n int, err error) {
	err = guard(func() (err error) {
		n, err = d.s.dec.Read(p)
		return err
	})
	if err == nil || err == io.EOF && d.s.in.err == nil {
		return n, err
	}
	return n, d.s.failed(err)
}

func (d *decompressor) Close() error {
	d.s.close()
	return nil
}
