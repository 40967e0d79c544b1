package index

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/narvault/narvault/index/bincache"
	"github.com/narvault/narvault/narread/narinfo"
	"github.com/narvault/narvault/narread/storepath"
)

// hashOnly is the Path of an Entry whose name is not yet known: only Hash may
// be called.
func hashOnly(hash string) storepath.Path { return storepath.Path(hash) }

// An outcome is what became of one store path.
type outcome struct {
	Entry // its number is 0 for a new one
	what  what
	value []byte           // the encoded record, not yet sealed
	refs  []storepath.Path // that it leaves out
	head  head             // of value
	warn  error
}

type what uint8

const (
	made    what = iota
	reused       // value is that of the generation before
	gone         // there is no narinfo any more
	other        // its narinfo is of another store path with the same hash part
	unknown      // its narinfo is damaged, and its name was never known
)

const (
	batchSize = 8 // store paths that are handed over at a time
	// window is how many batches may be waiting for a slow one before them: the
	// database wants its records in order.
	window = 64
)

type batch struct {
	in   []Entry
	out  []outcome
	done chan struct{}
}

// run works on the entries, several at a time, and takes what comes of them in
// their order.
func (b *builder) run(ctx context.Context, entries []Entry) error {
	group, ctx := errgroup.WithContext(ctx)
	queue, work := make(chan *batch, window), make(chan *batch)
	group.Go(func() error {
		defer close(queue)
		defer close(work)
		for len(entries) > 0 {
			n := min(batchSize, len(entries))
			t := &batch{in: entries[:n], done: make(chan struct{})}
			entries = entries[n:]
			for _, to := range []chan *batch{queue, work} {
				select {
				case to <- t:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range b.o.Workers {
		group.Go(func() error {
			for t := range work {
				for _, e := range t.in {
					t.out = append(t.out, b.examine(ctx, e))
				}
				close(t.done)
			}
			return nil
		})
	}
	group.Go(func() error { return b.takeAll(ctx, queue) })
	return group.Wait()
}

func (b *builder) takeAll(ctx context.Context, queue <-chan *batch) error {
	for t := range queue {
		select {
		case <-t.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := ctx.Err(); err != nil {
			return err // what examine found may be wrong
		}
		for i := range t.out {
			if err := b.take(&t.out[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// examine makes the record of a store path, or takes the one there was. It runs
// in many goroutines.
func (b *builder) examine(ctx context.Context, e Entry) outcome {
	out := outcome{Entry: e}
	hash := e.Path.Hash()
	file, err := b.cache.ReadNarInfo(hash)
	if isNotExist(err) {
		out.what = gone
		return out
	}
	r := record{head: head{kind: kindPath}}
	var info *narinfo.NarInfo
	if err == nil {
		r.sum = narInfoSum(file)
		if b.reuse(&out, r.sum) {
			return out
		}
		info, err = b.parse(hash, file)
	}
	out.what = made
	if err != nil {
		out.warn = b.narInfoError(hash, err)
		if e.Number == 0 {
			out.what = unknown
			return out
		}
		r.kind, r.reason = kindDamaged, err.Error()
		out.set(b.codec.encode(r))
		return out
	}
	if e.Number != 0 && info.StorePath != e.Path {
		out.what = other
		return out
	}
	out.Path, r.narSize = info.StorePath, info.NarSize
	r.text = b.codec.short(file, info)
	out.refs = r.refs
	out.warn = b.list(ctx, info, &r)
	out.set(b.codec.encode(r))
	return out
}

func (o *outcome) set(value []byte) {
	o.value = value
	p, _ := split(value)
	o.head = p.head
}

// reuse makes out the record of the generation before if that is of the same
// narinfo and complete.
func (b *builder) reuse(out *outcome, sum [16]byte) bool {
	if out.Number == 0 {
		return false
	}
	value, err := b.prev.value(out.Entry)
	if err != nil {
		return false
	}
	p, ok := split(value)
	if !ok || p.kind != kindPath || !p.listed || p.sum != sum {
		return false
	}
	refs, err := b.prev.references(out.Path)
	if err != nil {
		return false
	}
	out.what, out.value, out.head, out.refs = reused, value, p.head, refs
	return true
}

// parse parses a narinfo and checks it against its place, as bincache does.
func (b *builder) parse(hash string, file []byte) (*narinfo.NarInfo, error) {
	info, err := narinfo.Parse(file)
	if err != nil {
		return nil, err
	}
	if info.StorePath.Hash() != hash {
		return nil, fmt.Errorf("field StorePath: %s is another store path than the file's name says", info.StorePath)
	}
	if info.StoreDir != b.cache.StoreDir() {
		return nil, fmt.Errorf("field StorePath: %s is not in %s", info.StorePath.In(info.StoreDir), b.cache.StoreDir())
	}
	if err := bincache.CheckURL(info.URL); err != nil {
		return nil, fmt.Errorf("field URL: %w", err)
	}
	return info, nil
}

func (b *builder) narInfoError(hash string, err error) error {
	var pe *os.PathError
	var damage *bincache.DamageError
	switch {
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &damage):
		return damage
	}
	return &bincache.DamageError{File: b.cache.Dir() + "/" + hash + bincache.NarInfoExt, Err: err}
}

// list sets the listing of r, or the reason why it has none. The error, if it
// is worth telling, is returned as well.
func (b *builder) list(ctx context.Context, info *narinfo.NarInfo, r *record) error {
	l, layout, err := b.o.contents(ctx, info)
	switch {
	case err != nil:
	case l == nil:
		r.reason = "it was left out"
		return nil
	case l.NarSize() != info.NarSize:
		err = fmt.Errorf("NAR of %s has %d bytes, its narinfo says %d", info.StorePath, l.NarSize(), info.NarSize)
	default:
		r.listing, err = l.AppendBinary(nil)
	}
	if err != nil {
		r.reason = err.Error()
		return fmt.Errorf("list %s: %w", info.StorePath, err)
	}
	r.nodes, r.layout = l.Len(), layout
	return nil
}

// take adds an outcome to the new generation. It runs in one goroutine.
func (b *builder) take(out *outcome) error {
	if out.warn != nil {
		b.o.Warn(out.warn)
	}
	switch out.what {
	case other:
		b.late = append(b.late, out.Path.Hash())
		return nil
	case gone:
		b.total--
		return nil
	}
	b.done++
	b.o.Progress(b.done, b.total)
	if out.what == unknown || out.head.kind == kindDamaged {
		b.stats.Damaged++
	}
	if out.what == unknown {
		return nil
	}
	return b.add(out)
}

// add puts a record into the new generation.
func (b *builder) add(out *outcome) error {
	e := out.Entry
	if e.Number == 0 {
		if b.manifest.NextNumber > maxNumber {
			return errNumbers
		}
		e.Number = b.manifest.NextNumber
		b.manifest.NextNumber++
	}
	b.all = append(b.all, e)
	b.refs.add(out.refs)
	b.stats.Paths++
	b.stats.Entries += int64(out.head.nodes)
	b.manifest.NarSize += out.head.narSize
	if !out.head.listed {
		b.stats.NoListing++
	}
	if out.what == reused {
		b.stats.Reused++
	}
	if b.writer == nil && (out.what == reused || b.same(e, out.value)) {
		b.kept = append(b.kept, e)
		return nil
	}
	if err := b.startWriter(); err != nil {
		return err
	}
	return b.put(e, out.value)
}

var errNumbers = errors.New("the numbers of store paths are used up")

// same reports whether the generation before has the very same record.
func (b *builder) same(e Entry, value []byte) bool {
	if b.prev == nil {
		return false
	}
	if n, ok := b.prev.names.number(e.Path); !ok || n != e.Number {
		return false
	}
	old, err := b.prev.value(e)
	return err == nil && string(old[checksumSize:]) == string(value[checksumSize:])
}

// startWriter begins the new generation, when the first difference to the one
// before is met, and copies what went before.
func (b *builder) startWriter() error {
	if b.writer != nil {
		return nil
	}
	if err := b.space.check(b.dir, 0); err != nil {
		return err
	}
	if err := b.disk.Mkdir(b.temp); err != nil {
		return err
	}
	var err error
	if b.writer, err = b.newWriter(); err != nil {
		return errors.Join(err, b.disk.RemoveAll(b.temp))
	}
	for _, e := range b.kept {
		value, err := b.prev.value(e)
		if err != nil {
			return err
		}
		if err := b.put(e, value); err != nil {
			return err
		}
	}
	b.kept = nil
	return nil
}

func (b *builder) put(e Entry, value []byte) error {
	if err := b.space.check(b.dir, len(value)); err != nil {
		return err
	}
	seal(value, e)
	return b.writer.put(e.Number, value)
}
