// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// speaking is what a Voice needs of a speaker: a Speaker, or a test's.
type speaking interface {
	Run(ctx context.Context) error
	Announce(ctx context.Context, routes []Route) error
	Sessions() []Session
	Stop(ctx context.Context, wait time.Duration) error
}

// Voice keeps a speaker running: one that breaks is followed by another, so that whoever announces can go
// on with what is worth more than announcements. All methods but Run may be called concurrently.
type Voice struct {
	// create makes a speaker; restarting tells it that forwarding went on while there was none.
	create func(restarting bool) (speaking, error)
	// wake is called when there is a new speaker, which has no routes yet.
	wake func()
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	speaker speaking
	// restarting is how the first speaker was made. It holds until routes have been announced: routers
	// may be waiting for them.
	restarting bool
	// trouble says why nobody speaks, since at; empty if somebody does.
	trouble string
	at      time.Time
}

const (
	// speakRetry is the pause after the first failure of a speaker. It doubles up to speakRetryMax, and
	// begins anew after a speaker that lived longer than that.
	speakRetry    = time.Second
	speakRetryMax = time.Minute
)

// NewVoice makes the first speaker, and with it finds the faults of the configuration. Wake is called when
// another speaker has taken its place, which has no routes yet; it must not block.
func NewVoice(cfg Config, wake func()) (*Voice, error) {
	return newVoice(func(restarting bool) (speaking, error) {
		c := cfg
		c.Restarting = restarting
		return New(c)
	}, cfg.Restarting, wake, cfg.Log)
}

func newVoice(create func(restarting bool) (speaking, error), restarting bool, wake func(), log *slog.Logger) (*Voice, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s, err := create(restarting)
	if err != nil {
		return nil, err
	}
	return &Voice{create: create, wake: wake, log: log, speaker: s, restarting: restarting}, nil
}

// Run speaks until ctx ends or the speaker has been stopped.
func (v *Voice) Run(ctx context.Context) {
	for pause := speakRetry; ; pause = min(2*pause, speakRetryMax) {
		began := time.Now()
		err := v.current().Run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Since(began) > speakRetryMax {
			pause = speakRetry
		}
		if !v.replace(ctx, err, pause) {
			return
		}
	}
}

// replace makes another speaker in the place of one that broke, after a pause and as often as it takes.
// It returns false if ctx ended.
func (v *Voice) replace(ctx context.Context, broke error, pause time.Duration) bool {
	for ; ; pause = min(2*pause, speakRetryMax) {
		v.fail(broke)
		v.log.Error("nothing is announced by BGP", "error", broke, "retry_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		v.mu.Lock()
		restarting := v.restarting
		v.mu.Unlock()
		s, err := v.create(restarting)
		if err == nil {
			v.begin(s)
			return true
		}
		broke = err
	}
}

func (v *Voice) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trouble, v.at = fmt.Sprintf("BGP does not run: %v", err), time.Now()
}

// begin makes this the speaker. The trouble is over with its first announcement.
func (v *Voice) begin(s speaking) {
	v.mu.Lock()
	v.speaker = s
	v.mu.Unlock()
	v.wake()
}

func (v *Voice) current() speaking {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.speaker
}

// Announce has the speaker announce the whole set, as Speaker.Announce does. While nobody speaks it does
// nothing.
func (v *Voice) Announce(ctx context.Context, routes []Route) error {
	s := v.current()
	err := s.Announce(ctx, routes)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case s != v.speaker: // it broke meanwhile, and the next one will be asked
	case err == nil:
		v.trouble, v.restarting = "", false
	case v.trouble != "":
		return nil // it is known, and why
	}
	return err
}

// Stop says goodbye as Speaker.Stop does, if somebody speaks.
func (v *Voice) Stop(ctx context.Context, wait time.Duration) error {
	v.mu.Lock()
	s, silent := v.speaker, v.trouble != ""
	v.mu.Unlock()
	if silent {
		return nil
	}
	return s.Stop(ctx, wait)
}

// State is how the sessions stand, and why nobody speaks; empty if somebody does.
func (v *Voice) State() ([]Session, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	sessions := v.speaker.Sessions()
	if v.trouble != "" {
		for i := range sessions {
			sessions[i].LastError, sessions[i].LastErrorAt = v.trouble, v.at
		}
	}
	return sessions, v.trouble
}
