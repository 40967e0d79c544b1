package main

import (
	"cmp"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/narvault/narvault/backup"
	"github.com/narvault/narvault/backup/check"
	"github.com/narvault/narvault/narread/storepath"
)

// A progress shows how far a backup, a restore or a check is: a bar on a
// terminal, a line now and then elsewhere, nothing when quiet.
type progress struct {
	w     io.Writer
	quiet bool
	tty   bool
	noun  string        // what is counted; "" is store paths
	total backup.Amount // of these, and their bytes
	bar   *progressbar.ProgressBar
	read  atomic.Int64
	paths atomic.Int64
	ended chan struct{} // ends the printing of lines
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, quiet: quiet, tty: terminal(w)}
}

func (p *progress) hooks() backup.Progress {
	archived := func(storepath.Path, int64) { p.done() }
	if p.quiet {
		return backup.Progress{Planned: p.planned, Archived: archived}
	}
	return backup.Progress{Planned: p.planned, Read: p.bytes, Archived: archived}
}

// restoreHooks are hooks for the other direction.
func (p *progress) restoreHooks() backup.RestoreProgress {
	h := backup.RestoreProgress{
		Planned: func(total backup.Amount, free int64) { p.begin(total, free, "") },
		Done:    func(storepath.Path) { p.done() },
	}
	if !p.quiet {
		h.Read = p.bytes
	}
	return h
}

// checkHooks are hooks for a check, which counts NAR files.
func (p *progress) checkHooks() check.Progress {
	return check.Progress{
		Planned: func(narFiles int, fileSize int64) {
			p.noun = "NAR files"
			p.begin(backup.Amount{Paths: narFiles, NarSize: fileSize}, -1, "")
		},
		Read:    p.bytes,
		Checked: p.done,
	}
}

func (p *progress) planned(e backup.Estimate) {
	p.begin(backup.Amount{Paths: e.Write.Paths + e.Shared.Paths, NarSize: e.Write.NarSize}, e.Free, ", before compression,")
}

// begin begins the display.
func (p *progress) begin(total backup.Amount, free int64, before string) {
	p.total = total
	if free >= 0 && total.NarSize > free {
		fmt.Fprintf(p.w, "narvault: warning: up to %s are to be written%s and %s are free: there may not be enough room\n",
			size(total.NarSize), before, size(free))
	}
	if p.quiet || total.Paths == 0 {
		return
	}
	if !p.tty {
		p.ended = make(chan struct{})
		go p.lines(p.ended)
		return
	}
	p.bar = progressbar.NewOptions64(total.NarSize,
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

func (p *progress) done() {
	p.paths.Add(1)
	if p.bar != nil {
		p.bar.Describe(p.counts())
	}
}

func (p *progress) counts() string {
	return fmt.Sprintf("%d/%d %s", p.paths.Load(), p.total.Paths, cmp.Or(p.noun, "store paths"))
}

func (p *progress) lines(ended <-chan struct{}) {
	ticker := time.NewTicker(lineEvery)
	defer ticker.Stop()
	for start := time.Now(); ; {
		select {
		case <-ended:
			return
		case now := <-ticker.C:
			read := p.read.Load()
			rate := int64(float64(read) / now.Sub(start).Seconds())
			fmt.Fprintf(p.w, "%s, %s of %s, %s/s\n", p.counts(), size(read), size(p.total.NarSize), size(rate))
		}
	}
}

// stop ends the display; the terminal is left clean. It may be called again.
func (p *progress) stop() {
	if p.bar != nil {
		p.bar.Clear()
	}
	if p.ended != nil {
		close(p.ended)
	}
	p.ended = nil
}

// goesOn says, after an error, what was finished before it.
func (p *progress) goesOn(finished string) {
	if p.paths.Load() > 0 {
		fmt.Fprintf(p.w, "narvault: %s are %s; the same command goes on from there\n", p.counts(), finished)
	}
}
