// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/explain"
	"github.com/remora-lb/remora/lb/model"
)

// inspected is an inspection as the tables of explanations.
type inspected struct{ *dataplane.Inspection }

// Flow implements explain.Tables.
func (i inspected) Flow(name model.Flow) (lb.Flow, bool) {
	return i.Inspection.Flow(dataplane.FlowName(name))
}

// FlowRoom implements explain.Tables.
func (i inspected) FlowRoom(name model.Flow) bool {
	return i.Inspection.FlowRoom(dataplane.FlowName(name))
}

// worldOf is what can be known without a daemon.
func worldOf(i *dataplane.Inspection) *explain.World {
	return &explain.World{VIPs: i.VIPs, Reals: i.Reals, UDPIdle: i.UDPIdle, Decap: i.Decap, QUICLB: i.QUICLB, Tables: inspected{i}}
}

// explainIn makes a report in JSON. check may add to that of a packet.
func explainIn(w *explain.World, q control.Explanation, check func(*explain.Report) error) ([]byte, error) {
	if len(q.Frame) == 0 {
		r, err := w.Real(q.Backend, q.VIP, q.Examples)
		if errors.Is(err, explain.ErrNoReal) {
			return nil, &control.Error{Code: control.CodeNotFound, Object: q.Selection.String(), Problem: err.Error()}
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(r)
	}
	r, err := w.Packet(q.Frame)
	if err != nil {
		return nil, err
	}
	if err := check(r); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// Explain implements control.Daemon.
func (d *daemon) Explain(_ context.Context, q control.Explanation) ([]byte, error) {
	i, err := dataplane.Inspect(d.bpffs, d.instance)
	if err != nil {
		return nil, &control.Error{Code: control.CodeUnavailable, Problem: err.Error(), Cure: "the data plane may not be attached yet: try again"}
	}
	defer i.Close()
	w := worldOf(i)
	d.inform(w)
	return explainIn(w, q, func(*explain.Report) error { return nil })
}

// inform adds what the daemon knows beside the maps.
func (d *daemon) inform(w *explain.World) {
	var services []control.Service
	for _, s := range d.engine.Status().Services {
		services = append(services, controlService(s, nil))
	}
	d.health.Annotate(services)
	health, problems := make(map[lb.Target]string), make(map[lb.RealID]string)
	for _, s := range services {
		for _, v := range s.VIPs {
			for _, r := range v.Reals {
				health[lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}] = healthText(r.Health)
				problems[r.ID] = r.NextHop.Problem
			}
		}
	}
	w.Health = func(t lb.Target) string { return health[t] }
	for i := range w.Reals {
		hop := &w.Reals[i].NextHop
		if problem := problems[w.Reals[i].ID]; !hop.Resolved() && problem != "" {
			hop.Problem = problem
		}
	}
}

// healthText is what the checks say, for people; empty if there are none.
func healthText(h *control.Health) string {
	if h == nil {
		return ""
	}
	known := realHealth{Local: controlHealthWord(h.Local), Outside: controlHealthWord(h.Outside), Reason: h.Reason, Percent: uint32(h.Percent), Suppressed: h.Suppressed, Fault: h.Fault}
	return known.words()
}

// controlHealthWord is a verdict as a status shows it.
func controlHealthWord(s control.HealthState) string {
	switch s {
	case control.HealthUp:
		return "up"
	case control.HealthDown:
		return "down"
	}
	return "unknown"
}
