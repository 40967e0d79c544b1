package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/narread/storepath"
)

// A progress shows how far a backup is: a bar on a terminal, a line now and
// then elsewhere, nothing when quiet.
type progress struct {
	w     io.Writer
	quiet bool
	tty   bool
	total backup.Estimate
	bar   *progressbar.ProgressBar
	read  atomic.Int64
	paths atomic.Int64
	done  chan struct{} // ends the printing of lines
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, quiet: quiet, tty: terminal(w)}
}

func (p *progress) hooks() backup.Progress {
	if p.quiet {
		return backup.Progress{Planned: p.planned, Archived: p.archived}
	}
	return backup.Progress{Planned: p.planned, Read: p.bytes, Archived: p.archived}
}

func (p *progress) planned(e backup.Estimate) {
	p.total = e
	if e.Free >= 0 && e.Write.NarSize > e.Free {
		fmt.Fprintf(p.w, "narvault: warning: up to %s are to be written, before compression, and %s are free: there may not be enough room\n",
			size(e.Write.NarSize), size(e.Free))
	}
	if p.quiet || e.Write.Paths+e.Shared.Paths == 0 {
		return
	}
	if !p.tty {
		p.done = make(chan struct{})
		go p.lines(p.done)
		return
	}
	p.bar = progressbar.NewOptions64(e.Write.NarSize,
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetDescription(p.counts()),
	)
}

func (p *progress) bytes(n int) {
	p.read.Add(int64(n))
	if p.bar != nil {
		p.bar.Add(n) // an error of the bar is no error of the backup
	}
}

func (p *progress) archived(storepath.Path, int64) {
	p.paths.Add(1)
	if p.bar != nil {
		p.bar.Describe(p.counts())
	}
}

func (p *progress) counts() string {
	return fmt.Sprintf("%d/%d store paths", p.paths.Load(), p.total.Write.Paths+p.total.Shared.Paths)
}

func (p *progress) lines(done <-chan struct{}) {
	ticker := time.NewTicker(lineEvery)
	defer ticker.Stop()
	for start := time.Now(); ; {
		select {
		case <-done:
			return
		case now := <-ticker.C:
			read := p.read.Load()
			rate := int64(float64(read) / now.Sub(start).Seconds())
			fmt.Fprintf(p.w, "%s, %s of %s, %s/s\n", p.counts(), size(read), size(p.total.Write.NarSize), size(rate))
		}
	}
}

// stop ends the display; the terminal is left clean.
func (p *progress) stop() {
	if p.bar != nil {
		p.bar.Clear()
	}
	if p.done != nil {
		close(p.done)
	}
}
