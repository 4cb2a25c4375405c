// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// discovery reads Consul, has the governor judge what it says, and hands over what was accepted. The
// methods replace, retain, freeze, unfreeze, accept and state may be called from any goroutine; all
// else belongs to the goroutine of run, and to newDiscovery before it.
type discovery struct {
	log      *slog.Logger
	assembly *assembly
	saver    *judgedSaver
	inbox    *inbox
	asked    chan func()
	// settled holds a token when what the file no longer names is to be forgotten.
	settled   chan struct{}
	published atomic.Pointer[judgement]

	cfg      *config.Config
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
	// claimed are the VIPs that are claimed now, by service.
	claimed map[string]consul.Claimed

	overlay consul.Overlay
	// overlayEnds is when the next override ends; zero if none does.
	overlayEnds time.Time
	// overlaid are the services that the overlay froze.
	overlaid map[string]bool
	// refused is what cannot be used, by what says it.
	refused map[string][]refusal
	// backends are the accepted ones, by service. What is in it is not written to.
	backends map[string][]lb.Backend
	// changed tells that they are to be handed over; unsaved, that there is something to save.
	changed, unsaved bool
}

// refusal is something that a source says and that cannot be used.
type refusal struct {
	// Service may be empty. Object is an instance, a claim or a key.
	Service, Object, Reason string
}

// judgement is what is told of the judgement. It is not changed.
type judgement struct {
	Services []governor.Service
	Held     []governor.Hold
	Refused  []refusal
	Counters governor.Counters
}

// newDiscovery goes on from what an earlier run left, hands it over, and starts nothing.
func newDiscovery(c *config.Config, left judged, a *assembly, saver *judgedSaver, log *slog.Logger) (*discovery, error) {
	d := &discovery{
		log: log, assembly: a, saver: saver, inbox: newInbox(), asked: make(chan func()), settled: make(chan struct{}, 1),
		answers: make(map[string]*consul.Answer), claiming: make(map[string]*consul.Answer), catalogue: make(consul.Catalogue),
		claimed: make(map[string]consul.Claimed), refused: make(map[string][]refusal),
		overlaid: make(map[string]bool), backends: make(map[string][]lb.Backend),
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
	d.setConfig(c)
	if d.source, err = d.newReader(c); err != nil {
		return nil, err
	}
	d.fresh = d.source != nil
	for _, s := range d.governor.Services() {
		d.takeOver(s)
	}
	d.handOver()
	d.publish()
	return d, nil
}

// newReader is nil if there is nothing to read.
func (d *discovery) newReader(c *config.Config) (*consul.Source, error) {
	if !c.ReadsConsul() {
		return nil, nil
	}
	cfg := consulConfig(c, d.log)
	cfg.Watches = append(cfg.Watches, d.leftWatches(c)...)
	s, err := consul.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare to read Consul: %v", err)
	}
	return s, nil
}

func (d *discovery) setConfig(c *config.Config) { d.cfg, d.rules = c, consulRules(c) }

// run reads and judges until ctx ends.
func (d *discovery) run(ctx context.Context) error {
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
func startReader(ctx context.Context, d *discovery) runningReader {
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
func (d *discovery) next() time.Time {
	next := d.governor.Next()
	if next.IsZero() || !d.overlayEnds.IsZero() && d.overlayEnds.Before(next) {
		return d.overlayEnds
	}
	return next
}

// tick does what is due by the time.
func (d *discovery) tick(now time.Time) {
	d.note(d.governor.Tick(now))
	if !d.overlayEnds.IsZero() && !now.Before(d.overlayEnds) {
		d.setOverlay(d.overlay, now)
	}
}

// read takes in what was read.
func (d *discovery) read(n news, now time.Time) {
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
func (d *discovery) offer(name string, now time.Time) {
	a := d.answers[name]
	if p := a.Problem(); p != "" {
		d.offerFault(name, a, now)
		return
	}
	d.offerWhole(name, consul.JudgeAll(a.Instances, d.rules[name]), now)
}

func (d *discovery) offerFault(name string, a *consul.Answer, now time.Time) {
	d.note(d.governor.Offer(governor.Offer{
		Source: consulSource, Service: name, At: now, Fault: fault(a.Facts, a.Err), Detail: a.Problem(),
	}))
}

func (d *discovery) offerWhole(name string, verdicts []consul.Verdict, now time.Time) {
	list, refused := governed(d.overlay.Apply(name, verdicts, now))
	for i := range refused {
		refused[i].Service = name
	}
	d.refuse(name, refused)
	d.note(d.governor.Offer(governor.Offer{Source: consulSource, Service: name, At: now, Complete: true, Backends: list}))
}

// refuse makes this what cannot be used of what one says, and logs what is new.
func (d *discovery) refuse(by string, list []refusal) {
	for _, r := range list {
		if !slices.Contains(d.refused[by], r) {
			d.log.Warn("not used", "source", consulSource, "service", r.Service, "object", r.Object, "reason", r.Reason)
		}
	}
	if len(list) == 0 {
		delete(d.refused, by)
		return
	}
	d.refused[by] = list
}

// again offers all that is known anew.
func (d *discovery) again(now time.Time) {
	for name, a := range d.answers {
		// An answer that is not whole stays refused: offering it twice would count it twice.
		if a.Problem() == "" {
			d.offer(name, now)
		}
	}
	d.offerClaims(nil, now)
}

// note takes in what a call of the governor did.
func (d *discovery) note(r governor.Result) {
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

func (d *discovery) takeOver(s governor.Service) {
	if s.Known {
		d.backends[s.Service] = backendsOf(s.Backends)
	}
}

// tell logs what became of a hold.
func (d *discovery) tell(e governor.Event) {
	h := e.Hold
	args := []any{"service", h.Service, "source", h.Source, "object", h.Object, "rule", h.Rule.String()}
	if e.Outcome == governor.Began {
		d.log.Warn("held back: "+h.Sentence, append(args, "release", h.Release)...)
		return
	}
	d.log.Info("no longer held back", append(args, "outcome", e.Outcome.String())...)
}

// finish hands over, saves and publishes what the last event changed.
func (d *discovery) finish() {
	if d.changed {
		d.handOver()
	}
	if d.unsaved {
		d.saver.save(&judged{Record: d.governor.Record(), Overlaid: maps.Clone(d.overlaid)})
	}
	d.changed, d.unsaved = false, false
	d.publish()
}

// handOver gives the engine what was accepted.
func (d *discovery) handOver() {
	d.dropEmptyClaims(time.Now())
	d.assembly.setConsul(d.claimedServices(), maps.Clone(d.backends))
}

func (d *discovery) publish() {
	j := &judgement{Services: d.governor.Services(), Held: d.governor.Held(), Counters: d.governor.Counters()}
	for _, by := range slices.Sorted(maps.Keys(d.refused)) {
		j.Refused = append(j.Refused, d.refused[by]...)
	}
	d.published.Store(j)
}

// state is the judgement as of now.
func (d *discovery) state() *judgement { return d.published.Load() }

// replace makes c the configuration: what it reads is read from now on, and services that had their
// backends in the file keep them until Consul has answered. What it no longer names stays until
// retain. It fails if c cannot be used; then nothing changes.
func (d *discovery) replace(ctx context.Context, old, c *config.Config) error {
	renew := !reflect.DeepEqual(reading(old.Consul), reading(c.Consul)) || old.ReadsConsul() != c.ReadsConsul()
	return d.ask(ctx, func() error {
		source, err := d.newReader(c) // also to see whether it can be
		if err != nil {
			return err
		}
		d.setConfig(c)
		if renew {
			d.source, d.fresh = source, true
		} else if err := d.readThese(); err != nil {
			return err
		}
		now := time.Now()
		d.seed(old, now)
		if c.Consul.Overlay == "" {
			d.refuse(overlayKey, nil)
			d.setOverlay(nil, now)
		}
		d.again(now) // by the new rules
		return nil
	})
}

// readThese tells the reader what to read.
func (d *discovery) readThese() error {
	if d.source == nil {
		return nil
	}
	return d.source.Replace(append(watches(d.cfg), d.leftWatches(d.cfg)...), claimRules(d.cfg))
}

// reading is what a reader is made with and keeps.
func reading(c config.Consul) config.Consul {
	c.Claims, c.TCP, c.UDP, c.Register = nil, lb.ServiceVIP{}, lb.ServiceVIP{}, nil
	return c
}

// seed makes what the file had the last known good of services that it has from Consul now.
func (d *discovery) seed(old *config.Config, now time.Time) {
	for name := range d.cfg.Sources {
		list := old.Backends[name]
		if _, known := d.governor.Service(governor.Key{Source: consulSource, Service: name}); known || len(list) == 0 {
			continue
		}
		o := governor.Offer{Source: consulSource, Service: name, At: now, Complete: true}
		for _, b := range list {
			o.Backends = append(o.Backends, governor.Backend{Backend: b})
		}
		d.note(d.governor.Offer(o))
	}
}

// retain has what the configuration no longer names forgotten. It does not block.
func (d *discovery) retain() {
	select {
	case d.settled <- struct{}{}:
	default:
	}
}

// forget forgets what the configuration no longer names.
func (d *discovery) forget(now time.Time) {
	names := slices.Collect(maps.Keys(d.cfg.Sources))
	for _, s := range d.governor.Services() {
		if vip := claimedVIP(s.Service); vip.Addr.IsValid() && d.mayStay(s.Service, vip) {
			names = append(names, s.Service)
		}
	}
	d.note(d.governor.Retain(consulSource, names, now))
	maps.DeleteFunc(d.answers, func(name string, _ *consul.Answer) bool { return !slices.Contains(names, name) })
	maps.DeleteFunc(d.refused, func(by string, _ []refusal) bool {
		return by != overlayKey && by != claimsKey && !slices.Contains(names, by)
	})
}

// ask has run do something, and returns what came of it.
func (d *discovery) ask(ctx context.Context, do func() error) error {
	result := make(chan error, 1)
	select {
	case d.asked <- func() { err := do(); d.finish(); result <- err }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freeze keeps the backends of a service as they are for a time.
func (d *discovery) freeze(ctx context.Context, service, author, reason string, during time.Duration) (until time.Time, err error) {
	err = d.ask(ctx, func() error {
		now := time.Now()
		until = now.Add(during)
		r, err := d.governor.Freeze(service, governor.Freeze{Author: author, Reason: reason, Expiry: until}, now)
		d.operated(r, err)
		return err
	})
	return until, err
}

// unfreeze ends a freeze.
func (d *discovery) unfreeze(ctx context.Context, service string) error {
	return d.ask(ctx, func() error {
		r, err := d.governor.Unfreeze(service, time.Now())
		d.operated(r, err)
		return err
	})
}

// accept lets what is held of a service through, and returns how many changes that were.
func (d *discovery) accept(ctx context.Context, service string) (changes int, err error) {
	err = d.ask(ctx, func() error {
		r, err := d.governor.Accept(service, time.Now())
		for _, e := range r.Events {
			if e.Outcome == governor.Accepted {
				changes++
			}
		}
		d.operated(r, err)
		return err
	})
	return changes, err
}

// operated takes in what an operator's call did.
func (d *discovery) operated(r governor.Result, err error) {
	if err == nil {
		d.note(r)
		d.unsaved = true
	}
}

// settleTime is how long a run that does not stay waits for Consul.
const settleTime = 10 * time.Second

// settle reads until every service of the file has been answered for, or some time has passed: for a
// run that does not stay.
func (d *discovery) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-look.C:
			if d.state().complete(d.cfg) {
				cancel()
			}
		}
	}
}

// complete tells whether the latest answer about every service of the file was whole.
func (j *judgement) complete(c *config.Config) bool {
	whole := 0
	for _, s := range j.Services {
		if _, ok := c.Sources[s.Service]; ok && s.Known && s.Refused == governor.RuleNone {
			whole++
		}
	}
	return whole == len(c.Sources)
}
