package packing

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrClosed is returned by Write after Close or Abort.
var ErrClosed = errors.New("write to closed packing.Writer")

// WriterOptions are the options of a Writer. The zero value is right for most.
type WriterOptions struct {
	// InFlight is how many pieces of the pool this Writer may hold at a time;
	// 0 means workers+2: one being filled, one being written, and one for every
	// worker, so that a single Writer keeps all of them busy and one whose
	// destination is slow leaves half of the pool to the others.
	InFlight int
}

// Container is the format of a file of compressed pieces. Its methods are called
// one at a time.
type Container interface {
	// Begin returns what the file begins with.
	Begin() []byte
	// Add is told of the next piece: what it was packed to, and its size before.
	Add(packed []byte, size int)
	// End returns what follows the last piece.
	End() ([]byte, error)
}

// Writer compresses what is written to it. Close must be called to get a whole
// file, or Abort to give up; either gives back what the Writer holds of the
// pool, and leaves no goroutine behind.
//
// A Writer is for one goroutine at a time. Write may wait for other Writers of
// the same pool, so Writers that one goroutine fills in turn may wait for each
// other for ever: give each its own goroutine, or its own pool. The destination
// gets one Write at a time, in order, on goroutines of the Writer.
type Writer struct {
	w     io.Writer
	p     *Pool
	limit int
	cur   *piece // being filled, or nil
	ended bool   // Close or Abort was called

	mu       sync.Mutex
	cond     sync.Cond // signalled when held, queue, flushing or err changes
	held     int       // pieces of the pool, cur included
	queue    []*piece  // submitted and not yet written, in order
	flushing bool      // a goroutine is writing the head of the queue
	file     Container // of the goroutine that is flushing, or of Close
	written  int       // pieces
	err      error     // the first error; what comes later is dropped
}

// NewWriter returns a Writer that writes to w, compressing on p. Closing it
// does not close w.
func NewWriter(w io.Writer, p *Pool, file Container, o WriterOptions) *Writer {
	z := &Writer{w: w, p: p, file: file, limit: o.InFlight}
	if z.limit <= 0 {
		z.limit = p.workers + 2
	}
	z.cond.L = &z.mu
	return z
}

// Write compresses p. It returns before p has been compressed or written: an
// error of the destination shows in a later Write or in Close.
func (z *Writer) Write(p []byte) (int, error) {
	if z.ended {
		return 0, ErrClosed
	}
	n := 0
	for n < len(p) {
		if z.cur == nil {
			if err := z.acquire(); err != nil {
				return n, err
			}
		}
		c := min(z.p.size-len(z.cur.in), len(p)-n)
		z.cur.in = append(z.cur.in, p[n:n+c]...)
		n += c
		if len(z.cur.in) == z.p.size {
			z.submit()
		}
	}
	return n, nil
}

// Close compresses what is left, and waits until all of it has been written. It
// returns the first error of the encoder or the destination.
func (z *Writer) Close() error {
	if z.ended {
		return z.err
	}
	z.ended = true
	if z.cur != nil {
		z.submit()
	}
	if err := z.wait(); err != nil {
		return err
	}
	end, err := z.file.End()
	if err == nil && z.written == 0 {
		end = append(z.file.Begin(), end...)
	}
	if err == nil {
		err = z.write(end)
	}
	if err != nil {
		z.err = fmt.Errorf("write end of file: %w", err)
	}
	return z.err
}

// Abort gives up: pieces not yet written are dropped, and when it returns the
// destination gets no more writes. After Close or Abort it does nothing, so
// that it can be deferred.
func (z *Writer) Abort() {
	if z.ended {
		return
	}
	z.ended = true
	z.mu.Lock()
	z.fail(ErrClosed)
	z.mu.Unlock()
	if z.cur != nil {
		z.p.put(z.cur)
		z.cur = nil
	}
	z.wait()
}

// acquire takes a piece to fill.
func (z *Writer) acquire() error {
	z.mu.Lock()
	for z.held >= z.limit && z.err == nil {
		z.cond.Wait()
	}
	err := z.err
	if err == nil {
		z.held++
	}
	z.mu.Unlock()
	if err == nil {
		z.cur = z.p.get()
	}
	return err
}

// submit hands the filled piece to a worker.
func (z *Writer) submit() {
	f := z.cur
	z.cur = nil
	z.mu.Lock()
	z.queue = append(z.queue, f)
	z.mu.Unlock()
	// One goroutine a piece: starting it is a thousandth of the work, and none is
	// left to stop.
	go z.work(f)
}

// work compresses f, and writes what has become ready in order.
func (z *Writer) work(f *piece) {
	z.mu.Lock()
	dropped := z.err != nil
	z.mu.Unlock()
	if !dropped {
		z.p.compress(f)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	f.done = true
	if z.flushing {
		return // whoever writes now goes on with f
	}
	z.flushing = true
	for len(z.queue) > 0 && z.queue[0].done {
		z.flush()
	}
	z.flushing = false
	z.cond.Broadcast()
}

// flush writes the head of the queue. It is called with mu held, and gives it
// up while it writes.
func (z *Writer) flush() {
	f := z.queue[0]
	z.queue[0] = nil
	z.queue = z.queue[1:]
	if z.err == nil {
		z.mu.Unlock()
		err := z.add(f)
		z.mu.Lock()
		if err != nil {
			z.fail(err)
		}
		z.written++
	}
	z.p.put(f)
	z.held--
	z.cond.Broadcast()
}

// add writes a piece.
func (z *Writer) add(f *piece) error {
	if f.err != nil {
		return fmt.Errorf("compress block %d: %w", z.written, f.err)
	}
	z.file.Add(f.out, len(f.in))
	var err error
	if z.written == 0 {
		err = z.write(z.file.Begin())
	}
	if err == nil {
		err = z.write(f.out)
	}
	if err != nil {
		return fmt.Errorf("write block %d: %w", z.written, err)
	}
	return nil
}

func (z *Writer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, err := z.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// fail remembers the first error. It is called with mu held.
func (z *Writer) fail(err error) {
	if z.err == nil {
		z.err = err
	}
	z.cond.Broadcast()
}

// wait returns when nothing is being compressed or written any more.
func (z *Writer) wait() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	for len(z.queue) > 0 || z.flushing {
		z.cond.Wait()
	}
	return z.err
}
