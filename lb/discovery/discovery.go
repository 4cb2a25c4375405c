// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package discovery makes of what sources say the services and backends that the engine has. It reads
// Consul and has the governor judge the answers, follows claims, service definitions and operators'
// overrides in Consul, and puts what was accepted together with the services of the file. What is in
// force is saved, and a later run goes on from it.
package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/governor"
)

// Discovery reads Consul, has the governor judge what it says, and hands over what was accepted. Its
// exported methods may be called from any goroutine, Run and Settle only once; all else belongs to the
// goroutine of Run, and to New before it. There is nothing to close.
type Discovery struct {
	log      *slog.Logger
	events   event.Sink
	assembly *Assembly
	saver    *Saver
	inbox    *inbox
	asked    chan func()
	// settled holds a token when what the file no longer names is to be forgotten.
	settled   chan struct{}
	published atomic.Pointer[Judgement]

	// file is the configuration; cfg is the same with the services that are defined in Consul.
	file, cfg *config.Config
	// texts are the definitions in Consul by key, defined those in force by the name of their service;
	// definitionsHeard tells that the folder has been read.
	texts            map[string]string
	defined          map[string]*definition
	definitionsHeard bool
	// prepareChecks makes the health checks of a definition. Nil for none.
	prepareChecks func(config.Health) (Checks, error)

	rules    map[string]consul.Rules
	governor *governor.Governor
	// source is the reader, nil if nothing is read; fresh tells that it does not run yet.
	source *consul.Source
	fresh  bool
	// answers are the latest, by service of the file; catalogue has the last whole ones of services
	// that may claim, and claiming the latest.
	answers   map[string]*consul.Answer
	claiming  map[string]*consul.Answer
	catalogue consul.Catalogue
	// left are the watches of claimants that the reader may not read by itself.
	left []consul.Watch
	// claimed are the VIPs that are claimed now, by service.
	claimed map[string]consul.Claimed

	overlay consul.Overlay
	// overlayEnds is when the next override ends; zero if none does.
	overlayEnds time.Time
	// overlaid are the services that the overlay froze.
	overlaid map[string]bool
	// refused is what cannot be used, by what says it.
	refused map[string][]Refusal
	// backends are the accepted ones, by service. What is in it is not written to.
	backends map[string][]lb.Backend
	// changed tells that they are to be handed over; unsaved, that there is something to save.
	changed, unsaved bool
}

// Watches is what is read now, and how that goes.
func (d *Discovery) Watches() []consul.WatchStatus {
	if s := d.State().source; s != nil {
		return s.Watches()
	}
	return nil
}

// unheard are the services of the file that have their backends from Consul and of which nothing is known.
func unheard(c *config.Config, services []governor.Service) (names []string) {
	for name := range c.Sources {
		known := func(s governor.Service) bool { return s.Service == name && s.Known }
		if !slices.ContainsFunc(services, known) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Config is what a Discovery begins with. All but Events is needed.
type Config struct {
	// File is the configuration.
	File *config.Config
	// Left is what an earlier run left: Recall has it.
	Left Judged
	// Assembly gets what was accepted, Saver what is to be saved of it.
	Assembly *Assembly
	Saver    *Saver
	Log      *slog.Logger
	// Events receives what becomes of what is held. Nil for only the log.
	Events event.Sink
}

// New goes on from what an earlier run left, hands it over, and starts nothing.
func New(cfg Config) (*Discovery, error) {
	c, left, a, log := cfg.File, cfg.Left, cfg.Assembly, cfg.Log
	d := &Discovery{
		log: log, events: cfg.Events, assembly: a, saver: cfg.Saver, inbox: newInbox(), asked: make(chan func()), settled: make(chan struct{}, 1),
		answers: make(map[string]*consul.Answer), claiming: make(map[string]*consul.Answer), catalogue: make(consul.Catalogue),
		claimed: make(map[string]consul.Claimed), refused: make(map[string][]Refusal),
		overlaid: make(map[string]bool), backends: make(map[string][]lb.Backend),
	}
	if d.events == nil {
		d.events = event.ToLog(log)
	}
	maps.Copy(d.overlaid, left.Overlaid)
	now := time.Now()
	var err error
	if d.governor, err = governor.Restore(governorConfig(c.Governor), left.Record, now); err != nil {
		log.Warn("last known good backends of an earlier run not used", "error", err)
		if d.governor, err = governor.New(governorConfig(c.Governor)); err != nil {
			return nil, err
		}
	}
	d.texts, d.prepareChecks = left.Definitions, a.cfg.PrepareChecks
	d.setConfig(c)
	d.define(now)
	// What an earlier run left must not be in force for a moment if the file does not have it any more.
	d.forget(now)
	if c.Consul.Overlay == "" {
		d.setOverlay(nil, now)
	}
	if d.source, err = d.newReader(c); err != nil {
		return nil, err
	}
	d.fresh = d.source != nil
	if err := d.readThese(); err != nil {
		return nil, err
	}
	for _, s := range d.governor.Services() {
		d.takeOver(s)
	}
	d.handOver()
	d.publish()
	return d, nil
}

// newReader is nil if there is nothing to read. What it reads is set by readThese.
func (d *Discovery) newReader(c *config.Config) (*consul.Source, error) {
	if !c.ReadsConsul() {
		return nil, nil
	}
	s, err := consul.New(ConsulConfig(c, d.log))
	if err != nil {
		return nil, fmt.Errorf("prepare to read Consul: %v", err)
	}
	return s, nil
}

func (d *Discovery) setConfig(c *config.Config) {
	d.file = c
	d.merge()
}

// Run reads and judges until ctx ends.
func (d *Discovery) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	reader := startReader(ctx, d)
	defer func() { reader.stop() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-reader.failed:
			return err
		case do := <-d.asked:
			do()
		case <-d.settled:
			d.forget(time.Now())
		case <-d.inbox.ready:
			d.read(d.inbox.take(), time.Now())
		case <-timer.C:
			d.tick(time.Now())
		}
		if d.fresh {
			reader.stop()
			reader = startReader(ctx, d)
		}
		d.finish()
		timer.Stop()
		if next := d.next(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// runningReader is a reader of Consul at work.
type runningReader struct {
	failed chan error
	stop   func() // waits until it has ended
}

// startReader runs the present reader, if there is one.
func startReader(ctx context.Context, d *Discovery) runningReader {
	r := runningReader{failed: make(chan error, 1), stop: func() {}}
	d.fresh = false
	if d.source == nil {
		return r
	}
	ctx, cancel := context.WithCancel(ctx)
	source, done := d.source, make(chan struct{})
	go func() {
		defer close(done)
		if err := source.Run(ctx, d.inbox.put); err != nil {
			r.failed <- err
		}
	}()
	r.stop = func() {
		cancel()
		<-done
	}
	return r
}

// next is when tick is due; zero if nothing is to be waited for.
func (d *Discovery) next() time.Time {
	next := d.governor.Next()
	if next.IsZero() || !d.overlayEnds.IsZero() && d.overlayEnds.Before(next) {
		return d.overlayEnds
	}
	return next
}

// tick does what is due by the time.
func (d *Discovery) tick(now time.Time) {
	d.note(d.governor.Tick(now))
	if !d.overlayEnds.IsZero() && !now.Before(d.overlayEnds) {
		d.setOverlay(d.overlay, now)
	}
}

// read takes in what was read.
func (d *Discovery) read(n news, now time.Time) {
	if n.definitions != nil {
		d.readDefinitions(n.definitions, now)
	}
	if n.overlay != nil {
		d.readOverlay(n.overlay, now)
	}
	d.readLeft(&n)
	for name, a := range n.watched {
		if source, ok := d.cfg.Sources[name]; ok && source.Service == a.Service {
			d.answers[name] = a
			d.offer(name, now)
		}
	}
	if len(n.claiming) > 0 {
		maps.Copy(d.claiming, n.claiming)
		for service, a := range n.claiming {
			if a.Problem() == "" {
				d.catalogue[service] = a.Instances
			}
		}
		d.offerClaims(n.claiming, now)
	}
	d.freezeOverlaid(now)
}

// offer has the governor judge the latest answer about a service of the file.
func (d *Discovery) offer(name string, now time.Time) {
	a := d.answers[name]
	if p := a.Problem(); p != "" {
		d.offerFault(name, a, now)
		return
	}
	d.offerWhole(name, consul.JudgeAll(a.Instances, d.rules[name]), now)
}

func (d *Discovery) offerFault(name string, a *consul.Answer, now time.Time) {
	d.note(d.governor.Offer(governor.Offer{
		Source: ConsulSource, Service: name, At: now, Fault: fault(a.Facts, a.Err), Detail: a.Problem(),
	}))
}

func (d *Discovery) offerWhole(name string, verdicts []consul.Verdict, now time.Time) {
	list, refused := governed(d.overlay.Apply(name, verdicts, now))
	for i := range refused {
		refused[i].Service = name
	}
	d.refuse(name, refused)
	d.note(d.governor.Offer(governor.Offer{Source: ConsulSource, Service: name, At: now, Complete: true, Backends: list}))
}

// refuse makes this what cannot be used of what one says, and logs what is new.
func (d *Discovery) refuse(by string, list []Refusal) {
	for _, r := range list {
		if !slices.Contains(d.refused[by], r) {
			d.log.Warn("not used", "source", ConsulSource, "service", r.Service, "object", r.Object, "reason", r.Reason)
		}
	}
	if len(list) == 0 {
		delete(d.refused, by)
		return
	}
	d.refused[by] = list
}

// again offers all that is known anew.
func (d *Discovery) again(now time.Time) {
	for name, a := range d.answers {
		// An answer that is not whole stays refused: offering it twice would count it twice.
		if a.Problem() == "" {
			d.offer(name, now)
		}
	}
	d.offerDefined(now)
	d.offerClaims(nil, now)
}

// note takes in what a call of the governor did.
func (d *Discovery) note(r governor.Result) {
	for _, e := range r.Events {
		d.tell(e)
	}
	for _, key := range r.Changed {
		if s, ok := d.governor.Service(key); ok {
			d.takeOver(s)
		} else {
			delete(d.backends, key.Service)
		}
		d.changed = true
	}
	d.unsaved = d.unsaved || len(r.Changed) > 0 || len(r.Events) > 0
}

func (d *Discovery) takeOver(s governor.Service) {
	if s.Known {
		d.backends[s.Service] = backendsOf(s.Backends)
	}
}

// tell tells what became of a hold.
func (d *Discovery) tell(e governor.Event) { d.events.Emit(holdEvent(e)) }

// finish hands over, saves and publishes what the last event changed.
func (d *Discovery) finish() {
	if d.changed {
		d.handOver()
	}
	d.watchLeft()
	if d.unsaved {
		d.saver.save(&Judged{Record: d.governor.Record(), Overlaid: maps.Clone(d.overlaid), Definitions: d.definedTexts()})
	}
	d.changed, d.unsaved = false, false
	d.publish()
}

// handOver gives the engine what was accepted.
func (d *Discovery) handOver() {
	d.dropEmptyClaims(time.Now())
	d.dropDefinitions(time.Now())
	services, checks := d.definedServices()
	d.assembly.setConsul(append(services, d.claimedServices()...), maps.Clone(d.backends), checks)
}

func (d *Discovery) publish() {
	j := &Judgement{Complete: d.complete(), Leaves: d.definedLeaves(), Services: d.governor.Services(), Held: d.governor.Held(), Counters: d.governor.Counters(), source: d.source}
	j.Unheard = unheard(d.cfg, j.Services)
	for _, by := range slices.Sorted(maps.Keys(d.refused)) {
		j.Refused = append(j.Refused, d.refused[by]...)
	}
	d.published.Store(j)
}

// State is the judgement as of now.
func (d *Discovery) State() *Judgement { return d.published.Load() }
