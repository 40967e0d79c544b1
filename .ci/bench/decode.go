package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"runtime"
	"sync/atomic"

	ulixz "github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/narread/xz"
)

// makeSample makes the files that decoding is measured with, once: the first 64
// MiB of the corpus as one stream of NARs, and packed in several ways.
const makeSample = `test -f sample || {
	nix-store --export $(cat paths) | head -c 67108864 > sample
	xz -T0 --block-size=1MiB -c sample > sample.blocks.xz
	xz -T1 -c sample > sample.one.xz
	zstd -q -3 -c sample > sample.zst
}`

// decoding compares decoders: what counts is their CPU time.
func decoding() []comparison {
	return []comparison{
		{name: "decode 64 MiB of NARs, xz in blocks of 1 MiB", prepare: makeSample, rows: []row{
			{"narread/xz, blocks", `"$bench" client blocks sample.blocks.xz`, "sample.blocks.xz"},
			{"narread/xz, in order", `"$bench" client stream sample.blocks.xz`, "sample.blocks.xz"},
			{"xz -dc", `xz -dc sample.blocks.xz > /dev/null`, "sample.blocks.xz"},
			{"ulikunitz/xz", `"$bench" client ulikunitz sample.blocks.xz`, "sample.blocks.xz"},
			{"zstd -dc", `zstd -dcq sample.zst > /dev/null`, "sample.zst"},
		}},
		{name: "decode 64 MiB of NARs, xz in one block", prepare: makeSample, rows: []row{
			{"narread/xz, in order", `"$bench" client stream sample.one.xz`, "sample.one.xz"},
			{"xz -dc", `xz -dc sample.one.xz > /dev/null`, "sample.one.xz"},
			{"ulikunitz/xz", `"$bench" client ulikunitz sample.one.xz`, "sample.one.xz"},
		}},
	}
}

// decodeBlocks decodes the blocks of an .xz file on all cores.
func decodeBlocks(name string) error {
	file, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	blocks, err := xz.ReadIndex(bytes.NewReader(file), int64(len(file)), 1<<20)
	if err != nil {
		return err
	}
	var next atomic.Int64
	var group errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			var d xz.Decoder
			dst := make([]byte, 1<<20)
			for i := next.Add(1) - 1; i < int64(len(blocks)); i = next.Add(1) - 1 {
				b := blocks[i]
				if err := d.Block(b, dst[:b.Size], file[b.Offset:b.Offset+b.Stored()]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// decodeStream decodes a file in order.
func decodeStream(name string, decoder func(io.Reader) (io.Reader, error)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decoder(f)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}

func ownXz(r io.Reader) (io.Reader, error) { return xz.NewReader(r, 128<<20), nil }
func ulikunitzXz(r io.Reader) (io.Reader, error) {
	return ulixz.NewReader(bufio.NewReaderSize(r, 64<<10))
}
