// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/store"
)

// announcer has BGP announce the VIPs that can be served: facts from the engine and self-tests go
// through the state machines, and what comes out goes to the speaker as a whole.
type announcer struct {
	engine *engine.Engine
	store  *store.Store
	log    *slog.Logger
	keeper *keeper
	voice  *bgp.Voice
	// limit is nil if any number of balancers may drain at one time.
	limit *drainLimit
	// again hands all services over once more, events receives changes of state. Set before run.
	again  func()
	events event.Sink
	wakes  chan struct{} // room for one: says that there is something to look at

	// The following belong to run's goroutine.
	machine  *announce.Machine
	examiner *examiner
	resumed  bool     // what an earlier run announced has been taken over
	saved    []lb.VIP // the announced VIPs on disk
	said     string   // the last error of an announcement

	mu         sync.Mutex // guards what follows
	cfg        *config.BGP
	onExit     config.OnExit
	attributes attributes
	node       nodeDrain
	vips       []announce.Status
}

// nodeDrain is whether the balancer is drained, as it is on disk.
type nodeDrain struct {
	Drained bool      `json:"drained"`
	Since   time.Time `json:"since"`
}

// newAnnouncer looks at what an earlier run announced, and starts nothing. The engine has what that
// run left, and has changed nothing of it.
func newAnnouncer(f instanceFlags, c *config.Config, e *engine.Engine, s *store.Store, log *slog.Logger) (a *announcer, err error) {
	a = &announcer{engine: e, store: s, log: log, wakes: make(chan struct{}, 1)}
	a.keeper = newKeeper(a.wake)
	a.examiner = newExaminer(f, c.Interface, log)
	if a.machine, err = announce.New(announceConfig(c.BGP.Announce)); err != nil {
		return nil, err
	}
	attributes, err := a.prepare(c)
	if err != nil {
		return nil, err
	}
	a.install(c, attributes)
	s.Recall(nodeName, nodeVersion, &a.node, log)
	s.Recall(announcedName, announcedVersion, &a.saved, log)
	if a.limit, err = newDrainLimit(c.Consul, log); err != nil {
		return nil, err
	}
	left := e.Status()
	restarting := a.examiner.adopt(a.saved, left)
	a.keeper.seed(adoptedVIPs(left, a.examiner.adopted, tunnelSources(c)))
	speaker := speakerConfig(c.BGP, restarting, log)
	speaker.OnChange = newSessionTeller(a).see
	a.voice, err = bgp.NewVoice(speaker, a.wake)
	return a, err
}

// prepare validates a configuration and returns its attributes, for install. Nothing changes.
func (a *announcer) prepare(c *config.Config) (attributes, error) {
	if err := announceConfig(c.BGP.Announce).Validate(); err != nil {
		return nil, fmt.Errorf("configure announcements: %v", err)
	}
	return newAttributes(c.BGP)
}

// install makes this the configuration from the next look on, with what prepare returned. All but
// attributes and announce is read only once.
func (a *announcer) install(c *config.Config, attributes attributes) {
	a.mu.Lock()
	a.cfg, a.onExit, a.attributes = c.BGP, c.OnExit, attributes
	a.mu.Unlock()
	a.wake()
}

// wake has run look soon.
func (a *announcer) wake() {
	select {
	case a.wakes <- struct{}{}:
	default: // it will
	}
}

// run announces until ctx ends. What the routers are told then depends on whether stopping has ended,
// which is the wish to stop: after a failure of another component, and with on_exit: keep, nothing,
// so that graceful restart keeps the routes; else the routes are withdrawn first.
func (a *announcer) run(ctx, stopping context.Context) error {
	speaking, silence := context.WithCancel(context.WithoutCancel(ctx))
	defer silence()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.voice.Run(speaking)
	}()
	a.follow(ctx)
	a.mu.Lock()
	leave, wait := a.onExit == config.OnExitDetach && stopping.Err() != nil, a.cfg.Announce.Withdraw
	a.mu.Unlock()
	if leave {
		a.log.Info("withdrawing all routes", "wait", wait)
		if err := a.voice.Stop(speaking, wait); err != nil {
			a.log.Error("routes not withdrawn in order", "error", err)
		}
		a.saveAnnounced(nil)
	}
	silence()
	<-ended
	return nil
}

// announceInterval is the longest time between two looks: next hops change without a wake.
const announceInterval = time.Second

// follow looks at each wake, at intervals, and when a state machine says so, until ctx ends.
func (a *announcer) follow(ctx context.Context) {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wakes:
		case <-tick.C:
		case <-next.C:
		}
		now := time.Now()
		if at := a.look(ctx, now); !at.IsZero() {
			next.Reset(at.Sub(now))
		}
	}
}

// look decides once and announces the whole set. It returns when to look again at the latest; zero for
// never.
func (a *announcer) look(ctx context.Context, now time.Time) time.Time {
	a.mu.Lock()
	cfg, attributes, drained := a.cfg, a.attributes, a.node.Drained
	a.mu.Unlock()
	if err := a.machine.Configure(announceConfig(cfg.Announce)); err != nil {
		a.log.Error("announcements are decided as before", "error", err)
	}
	configured := a.keeper.configured()
	a.resume(configured, now)
	facts, again := a.examiner.facts(configured, a.engine.Status(), now)
	result := a.machine.Step(now, announce.Inputs{Drain: drained, VIPs: facts})
	a.report(result.VIPs)
	a.tell(ctx, attributes.routes(result.Announcements))
	a.saveAnnounced(announcedVIPs(result.VIPs))
	a.letGo(result.VIPs)
	if again && (result.Next.IsZero() || result.Next.After(now.Add(testPause))) {
		return now.Add(testPause)
	}
	return result.Next
}

// resume has the state machines know, once, the VIPs that an earlier run announced and that are not
// configured any more: they are drained, as after a reload.
func (a *announcer) resume(configured []lb.VIP, now time.Time) {
	if a.resumed {
		return
	}
	a.resumed = true
	a.machine.Step(now, announce.Inputs{VIPs: a.examiner.resumed(configured)})
}

// report keeps the states for others, and logs those that changed.
func (a *announcer) report(vips []announce.Status) {
	a.mu.Lock()
	before := a.vips
	a.vips = vips
	a.mu.Unlock()
	old := make(map[lb.VIP]announce.Status, len(before))
	for _, v := range before {
		old[v.VIP] = v
	}
	for _, v := range vips {
		if was, known := old[v.VIP]; !known || was.State != v.State || was.Code != v.Code {
			a.Emit(announcementEvent(was, v))
		}
	}
}

// tell has the speaker announce. A failure is made good by the next look.
func (a *announcer) tell(ctx context.Context, routes []bgp.Route) {
	text := ""
	if err := a.voice.Announce(ctx, routes); err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	if text != "" && text != a.said {
		a.log.Error("routes are not announced as decided", "error", text)
	}
	a.said = text
}

// letGo has those VIPs leave the data plane that are withdrawn and not configured any more.
func (a *announcer) letGo(vips []announce.Status) {
	listed := make(map[lb.VIP]bool, len(vips))
	for _, v := range vips {
		listed[v.VIP] = true
	}
	if a.keeper.release(listed) {
		a.again()
	}
}

// announcedVIPs are those that routers have, by VIP.
func announcedVIPs(vips []announce.Status) (announced []lb.VIP) {
	for _, v := range vips {
		if v.Announced {
			announced = append(announced, v.VIP)
		}
	}
	return announced
}

// saveAnnounced keeps for the next run what is announced.
func (a *announcer) saveAnnounced(vips []lb.VIP) {
	if slices.Equal(vips, a.saved) {
		return
	}
	if err := a.store.Save(announcedName, announcedVersion, vips); err != nil {
		a.log.Error("announced VIPs not saved", "error", err)
		return
	}
	a.saved = vips
}

// What is saved, and the version of its layout.
const (
	nodeName, nodeVersion           = "node", 1
	announcedName, announcedVersion = "announced", 1
)

// drain takes the balancer out, or in again, and returns once that is saved.
func (a *announcer) drain(on bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.node.Drained != on {
		a.node = nodeDrain{Drained: on, Since: time.Now()}
		a.wake()
	}
	// Also what was so before: saving that may have failed.
	if err := a.store.Save(nodeName, nodeVersion, a.node); err != nil {
		return fmt.Errorf("save the state of the balancer: %v", err)
	}
	return nil
}

// status is what is announced, to whom, and why.
func (a *announcer) status() *control.BGP {
	sessions, trouble := a.voice.State()
	a.mu.Lock()
	defer a.mu.Unlock()
	b := &control.BGP{Drained: a.node.Drained}
	if b.Drained {
		b.DrainedSince = a.node.Since
	}
	for _, s := range sessions {
		b.Sessions = append(b.Sessions, control.BGPSession{
			Peer: s.Peer, ASN: s.ASN, State: string(s.State), Since: s.Since,
			LastError: s.LastError, LastErrorAt: s.LastErrorAt, Routes: s.Routes, Flaps: s.Flaps, BFD: s.BFD,
		})
	}
	for _, v := range a.vips {
		b.VIPs = append(b.VIPs, announcement(v, trouble))
	}
	return b
}

// announcement is how a VIP stands. Trouble says why nobody is told; empty if routers are.
func announcement(v announce.Status, trouble string) control.Announcement {
	a := control.Announcement{
		VIP: v.VIP, State: control.AnnounceState(v.State), Since: v.Since, Code: string(v.Code), Reason: v.Reason, Announced: v.Announced,
	}
	if v.Announced && trouble != "" {
		a.Announced, a.Reason = false, v.Reason+"; but nothing is announced: "+trouble
	}
	return a
}

// Emit implements event.Sink, for those who are made before events is set.
func (a *announcer) Emit(e event.Event) {
	if a.events != nil {
		a.events.Emit(e)
	}
}

// announced are the VIPs that routers are told of now.
func (a *announcer) announced() map[lb.VIP]bool {
	_, trouble := a.voice.State()
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[lb.VIP]bool)
	for _, v := range a.vips {
		if v.Announced && trouble == "" {
			all[v.VIP] = true
		}
	}
	return all
}

// drained tells whether the balancer is taken out.
func (a *announcer) drained() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node.Drained
}
