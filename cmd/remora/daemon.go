// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/health"
	"github.com/remora-lb/remora/lb/metrics"
)

// daemon is the balancer as the control API sees it.
type daemon struct {
	instanceFlags
	engine *engine.Engine
	drains *drains
	// discovery is what comes from Consul.
	discovery *discovery.Discovery
	// leave is what is configured for a VIP.
	leave func(lb.VIP) lb.Leave
	// announcer is nil without BGP.
	announcer *announcer
	health    *health.Health
	// metrics is nil if they are not to be served.
	metrics *metrics.Server
}

var _ control.Daemon = (*daemon)(nil)

// Status implements control.Daemon. Counters come from the pinned maps.
func (d *daemon) Status(context.Context) (control.Status, error) {
	snap, err := dataplane.ReadSnapshot(d.bpffs, d.instance)
	if err != nil {
		return control.Status{}, &control.Error{Code: control.CodeUnavailable, Problem: err.Error(), Cure: "the data plane may not be attached yet: try again"}
	}
	return d.statusOf(snap), nil
}

// statusOf is the status of a data plane with these counters.
func (d *daemon) statusOf(snap *dataplane.Snapshot) control.Status {
	s := d.engine.Status()
	status := control.Status{
		Version: buildVersion(), Instance: d.instance, Settled: s.Settled, Changes: s.Changes,
		LastApply: s.LastApply, LastError: s.LastError,
		Flows:      control.FlowTable{Capacity: snap.FlowCapacity, Flows: snap.Flows, Events: snap.FlowEvents},
		Interfaces: []control.Interface{{Name: snap.Interface, Mode: controlMode(snap.Mode), ModeReason: snap.ModeReason}},
	}
	for _, p := range s.Problems {
		status.Problems = append(status.Problems, control.Problem{Service: p.Service, VIP: p.VIP, Backend: p.Backend, Text: p.Text})
	}
	counters := make(map[lb.RealID]dataplane.Counter)
	for _, r := range snap.Reals {
		counters[r.ID] = r.Counter
	}
	for _, service := range s.Services {
		status.Services = append(status.Services, controlService(service, counters))
	}
	d.health.Annotate(status.Services)
	if d.announcer != nil {
		status.BGP = d.announcer.status()
	}
	if d.metrics != nil {
		listener := control.MetricsListener(d.metrics.Status())
		status.Metrics = &listener
	}
	return status
}

func controlMode(m attach.Mode) control.Mode {
	if m == attach.Native {
		return control.ModeNative
	}
	return control.ModeGeneric
}

func controlService(s engine.ServiceStatus, counters map[lb.RealID]dataplane.Counter) control.Service {
	service := control.Service{Name: s.Name}
	for _, v := range s.VIPs {
		vip := control.VIP{VIPEntry: v.VIPEntry, Held: v.Held, Slots: v.States}
		for _, r := range v.Reals {
			vip.Reals = append(vip.Reals, control.Real{
				Real:    r.Real,
				Absence: control.Absence{Cause: control.Cause(r.Absence.Cause), Since: r.Absence.Since, Until: r.Absence.Until},
				Slots:   r.Slots, PreviousSlots: r.PrevSlots, Flows: r.Flows, Active: r.Active,
				Packets: counters[r.ID].Packets, Bytes: counters[r.ID].Bytes,
			})
		}
		service.VIPs = append(service.VIPs, vip)
	}
	return service
}

// targets are what the selection names in the data plane, by VIP.
func (d *daemon) targets(s control.Selection) ([]lb.Target, error) {
	var targets []lb.Target
	for t := range d.engine.Status().ByTarget() {
		if s.Names(t) {
			targets = append(targets, t)
		}
	}
	if len(targets) == 0 {
		return nil, &control.Error{Code: control.CodeNotFound, Object: s.String(), Problem: fmt.Sprintf("there is no backend %s", s)}
	}
	slices.SortFunc(targets, lb.Target.Compare)
	return targets, nil
}

// Drain implements control.Daemon.
func (d *daemon) Drain(ctx context.Context, s control.Selection, timeout time.Duration) ([]control.Drain, error) {
	targets, err := d.targets(s)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	until := make(map[lb.Target]time.Time)
	for _, t := range targets {
		wait := timeout
		if wait == 0 {
			wait = d.leave(t.VIP).Drain
		}
		until[t] = now.Add(wait)
	}
	if err := d.drains.add(until, now); err != nil {
		return nil, &control.Error{Code: control.CodeInternal, Object: s.String(),
			Problem: fmt.Sprintf("the drain began, but would not survive a restart: %v", err), Cure: "make room in the state folder and drain again"}
	}
	d.awaitAbsent(ctx, targets)
	return d.drains.list(func(t lb.Target) bool { return slices.Contains(targets, t) }), nil
}

// awaitAbsent waits until the engine has taken the targets out of their rings, but not for long: what
// hinders it is in the status.
func (d *daemon) awaitAbsent(ctx context.Context, targets []lb.Target) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		reals := d.engine.Status().ByTarget()
		if !slices.ContainsFunc(targets, func(t lb.Target) bool { return reals[t].Absence.Cause == engine.CauseNone }) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// Undrain implements control.Daemon.
func (d *daemon) Undrain(_ context.Context, s control.Selection) ([]lb.Target, error) {
	targets, err := d.targets(s)
	if err != nil {
		return nil, err
	}
	ended, err := d.drains.end(targets)
	if err != nil {
		return nil, &control.Error{Code: control.CodeInternal, Object: s.String(),
			Problem: fmt.Sprintf("the drain ended, but would begin again at a restart: %v", err), Cure: "make room in the state folder and undrain again"}
	}
	return ended, nil
}

// Drains implements control.Daemon.
func (d *daemon) Drains(_ context.Context, s control.Selection) ([]control.Drain, error) {
	if s != (control.Selection{}) {
		if _, err := d.targets(s); err != nil {
			return nil, err
		}
	}
	return d.drains.list(s.Names), nil
}

// DrainNode implements control.Daemon.
func (d *daemon) DrainNode(ctx context.Context, on bool) error {
	if d.announcer == nil {
		return &control.Error{Code: control.CodeRefused, Problem: "the balancer announces nothing, so it cannot take itself out",
			Cure: "configure bgp, or take its routes out where they are made"}
	}
	if on {
		if err := d.announcer.limit.take(ctx); err != nil {
			return &control.Error{Code: control.CodeRefused, Problem: fmt.Sprintf("the limit of drains does not allow it: %v", err),
				Cure: "wait until another balancer is in again; if it must be, take consul.drain_limit out of the file and restart"}
		}
	}
	err := d.announcer.drain(on)
	if !on {
		d.announcer.limit.give()
	}
	if err != nil {
		return &control.Error{Code: control.CodeInternal, Problem: fmt.Sprintf("it is done, but will be as before after a restart: %v", err),
			Cure: "make room in the state folder and try again"}
	}
	return nil
}

// ExportState implements control.Daemon.
func (d *daemon) ExportState(ctx context.Context, w io.Writer) error {
	x, err := d.engine.Export(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(exportFile{Format: exportFormat, Version: exportVersion, Export: *x})
}

// exportFile is an export as it is written.
type exportFile struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	engine.Export
}

const (
	exportFormat  = "remora-state"
	exportVersion = 1
)

// ImportState implements control.Daemon.
func (d *daemon) ImportState(ctx context.Context, r io.Reader) (control.Imported, error) {
	var f exportFile
	dec := json.NewDecoder(r)
	err := dec.Decode(&f)
	switch {
	case err != nil:
		return control.Imported{}, &control.Error{Code: control.CodeInvalid, Problem: fmt.Sprintf("this is no exported state: %v", err)}
	case f.Format != exportFormat:
		return control.Imported{}, &control.Error{Code: control.CodeInvalid, Problem: fmt.Sprintf("this is no exported state: its format is %q, not %q", f.Format, exportFormat)}
	case f.Version != exportVersion:
		return control.Imported{}, &control.Error{Code: control.CodeInvalid, Problem: fmt.Sprintf("the state has version %d, but this program reads version %d", f.Version, exportVersion),
			Cure: "export and import with the same version of remora"}
	}
	if _, err := dec.Token(); err != io.EOF {
		return control.Imported{}, &control.Error{Code: control.CodeInvalid, Problem: "something follows the exported state"}
	}
	got, err := d.engine.Import(ctx, &f.Export)
	if err != nil {
		return control.Imported{}, err
	}
	return control.Imported{
		Rings: got.VIPs, RingsSkipped: len(f.VIPs) - got.VIPs,
		Flows: got.Flows, FlowsSkipped: got.Known + got.Unknown,
	}, nil
}
