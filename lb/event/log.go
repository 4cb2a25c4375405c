// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Kept is how many events a Log keeps.
const Kept = 1000

// Log is the record of a daemon: a Sink that keeps the latest events, and writes each as a line. Its
// methods may be called from any goroutine. There is nothing to close.
type Log struct {
	lines *slog.Logger

	mu     sync.Mutex
	kept   [Kept]Event // the event with number n is at n % Kept; guarded by mu
	last   uint64      // the latest number, 0 if there is none; guarded by mu
	counts map[Kind]uint64
	// more is closed, and made anew, with each event; guarded by mu.
	more chan struct{}
}

// NewLog makes a log that writes to lines; nil writes nowhere.
func NewLog(lines *slog.Logger) *Log {
	if lines == nil {
		lines = slog.New(slog.DiscardHandler)
	}
	return &Log{lines: lines, counts: make(map[Kind]uint64), more: make(chan struct{})}
}

// Emit implements Sink. Lines of events that come at once may be written in another order than the
// events are numbered.
func (l *Log) Emit(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	l.add(e)
	e.write(l.lines)
}

func (l *Log) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Number = l.last
	e.bound()
	l.kept[e.Number%Kept] = e
	l.counts[e.Kind]++
	close(l.more)
	l.more = make(chan struct{})
}

// Counts are the events since the start, by kind. The caller owns the map.
func (l *Log) Counts() map[Kind]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// Last is the number of the latest event; 0 if there was none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// After are the kept events with greater numbers than this, in order, and how many of these are kept no
// more.
func (l *Log) After(number uint64) (events []Event, lost uint64) {
	events, lost, _ = l.after(number)
	return events, lost
}

// after is After, and what is closed when there are more.
func (l *Log) after(number uint64) (events []Event, lost uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number > l.last { // of an earlier run of the daemon
		number = 0
	}
	if first := l.first(); number+1 < first {
		number, lost = first-1, first-1-number
	}
	for n := number + 1; n <= l.last; n++ {
		events = append(events, l.kept[n%Kept])
	}
	return events, lost, l.more
}

// first is the least number that is kept. The caller holds mu.
func (l *Log) first() uint64 {
	if l.last < Kept {
		return 1
	}
	return l.last - Kept + 1
}

// Follow calls each with the events after this number, then with new ones as they come, until ctx ends,
// whose error it returns, or each fails, whose error it returns. A caller that is slower than the events
// come loses those that are kept no more: lost says how many came right before events. Nobody waits for it.
func (l *Log) Follow(ctx context.Context, number uint64, each func(events []Event, lost uint64) error) error {
	for {
		events, lost, more := l.after(number)
		if len(events) > 0 {
			if err := each(events, lost); err != nil {
				return err
			}
			number = events[len(events)-1].Number
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}
