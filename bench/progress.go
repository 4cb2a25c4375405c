// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Progress keeps one line of a terminal up to date: how much is done, and how long the rest takes. nil is
// silent. It may be used by several goroutines.
type Progress struct {
	out   io.Writer
	start time.Time

	mu          sync.Mutex
	whole, of   int // parts that are done, of how many
	shown       bool
	next        time.Time // when the line is written anew
	description string
}

// progressPause is the time between two lines.
const progressPause = 200 * time.Millisecond

// clearLine goes to the line's beginning and deletes it.
const clearLine = "\r\x1b[K"

// NewProgress shows progress on w; nil if that is no terminal.
func NewProgress(w io.Writer) *Progress {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return newProgress(w)
}

func newProgress(w io.Writer) *Progress { return &Progress{out: w, start: time.Now()} }

// Write writes lines above the line of progress.
func (p *Progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.out.Write(b)
}

// Done removes the line.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *Progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, clearLine)
	}
	p.shown, p.next = false, time.Time{}
}

// describe says what is being done.
func (p *Progress) describe(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.description = fmt.Sprintf(format, args...)
	p.mu.Unlock()
}

// begin says that i of n parts are done.
func (p *Progress) begin(i, n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.whole, p.of = i, n
	p.mu.Unlock()
	p.part(0, 1)
}

// part says that i of n parts of the present part are done.
func (p *Progress) part(i, n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.of == 0 || now.Before(p.next) {
		return
	}
	done := (float64(p.whole) + float64(i)/float64(n)) / float64(p.of)
	fmt.Fprint(p.out, clearLine+progressText(done, now.Sub(p.start), p.description))
	p.shown, p.next = true, now.Add(progressPause)
}

// progressText tells the time that is left once some of it tells how fast it goes.
func progressText(done float64, took time.Duration, description string) string {
	text := fmt.Sprintf("%3.0f %%", 100*done)
	if done > 0.02 {
		left := time.Duration(float64(took) * (1 - done) / done)
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	if description != "" {
		text += ": " + description
	}
	return text
}
