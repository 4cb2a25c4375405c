// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package explain says what a data plane does with a packet, and why: each step of
// docs/packet-path.md, with the tables as they are. It runs the model of the packet path on copies of
// what it needs of them, so it changes nothing.
package explain

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// World is the tables of a data plane, and what a daemon knows beside them.
type World struct {
	VIPs  []lb.VIPEntry
	Reals []lb.Real
	// UDPIdle, Decap and QUICLB are those of model.Tables.
	UDPIdle time.Duration
	Decap   lb.Decap
	QUICLB  lb.QUICLB
	// Tables are what is read only where a packet needs it.
	Tables Tables
	// Health is what the daemon knows of a backend's health, for people; empty if it knows nothing. Nil
	// stands for no daemon.
	Health func(lb.Target) string
}

// Tables are read where a packet needs them.
type Tables interface {
	// Slots are those of a ring; nil if there are none.
	Slots(lb.RingID) []lb.Slot
	// Targets are where servers' numbers, and the backends of source routes, lead on a ring's VIP.
	Targets(lb.RingID) (servers map[uint32]lb.RealID, routes map[netip.Addr]lb.RealID, err error)
	// SourceRoute is that of the longest prefix that holds the client.
	SourceRoute(client netip.Addr) (route lb.SourceRoute, found bool, err error)
	// Flow is what is remembered of a flow.
	Flow(model.Flow) (f lb.Flow, found bool)
	// FlowRoom tells whether a flow without an entry can get one, on VIPs without lb.FlowAlways.
	FlowRoom(model.Flow) bool
	// Flows calls visit with every remembered flow.
	Flows(visit func(lb.Flow))
}

// run is one frame's way through the model.
type run struct {
	tables *model.Tables
	flows  *model.Flows
	result model.Result
	steps  []Step
	// What was found in the tables while it was looked for.
	route    *lb.SourceRoute
	remember *lb.Flow
	asked    bool // the flow table was asked
	full     bool // and has no place for the flow
}

// process runs a frame through the model. What tables it needs is known only on the way: it is run
// again with each that it asked for.
func (w *World) process(frame []byte) (*run, error) {
	r := &run{flows: &model.Flows{}}
	var err error
	if r.tables, err = w.modelTables(frame); err != nil {
		return nil, err
	}
	r.again(frame)
	if client, ok := r.unrouted(); ok {
		route, found, err := w.Tables.SourceRoute(client)
		if err != nil {
			return nil, err
		}
		if found {
			r.route = &route
			r.tables.SourceRoutes = map[netip.Prefix]netip.Addr{route.Prefix: route.Backend}
			r.again(frame)
		}
	}
	if name := r.result.Flow.Flow; name.Dst.IsValid() {
		w.lookUp(r, name)
		r.again(frame)
	}
	return r, nil
}

// lookUp gives the model's flow table what is remembered of the flow, or that there is no place for it.
func (w *World) lookUp(r *run, name model.Flow) {
	r.asked = true
	f, found := w.Tables.Flow(name)
	if found {
		r.remember = &f
		r.flows.Set(name, model.Entry{Real: f.Real, Generation: f.Generation, Slot: f.Slot, Seen: f.Seen, Idle: f.Idle})
		return
	}
	if vip, ok := r.vip(); ok && r.tables.VIPs[vip].Flows == lb.FlowAlways || w.Tables.FlowRoom(name) {
		return
	}
	r.full = true
	r.flows.Refuse = func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedFull, true }
}

// again runs the frame from its beginning.
func (r *run) again(frame []byte) {
	r.steps = nil
	r.tables.Trace = func(step, text string) { r.steps = append(r.steps, Step{Name: step, Text: text}) }
	r.result = r.tables.Process(frame, r.flows)
}

// text is what the last step of this name found.
func (r *run) text(step string) (text string, found bool) {
	for _, s := range r.steps {
		if s.Name == step {
			text, found = s.Text, true
		}
	}
	return text, found
}

// unrouted is the client whose source route was asked for.
func (r *run) unrouted() (netip.Addr, bool) {
	text, _ := r.text("source route")
	client, ok := strings.CutPrefix(text, "none for ")
	if !ok {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(client)
	return addr, err == nil
}

// vip is the VIP that the packet met.
func (r *run) vip() (lb.VIP, bool) {
	text, _ := r.text("vip")
	name, _, ok := strings.Cut(text, ", a ring of ")
	if !ok {
		return lb.VIP{}, false
	}
	vip, err := lb.ParseVIP(name)
	return vip, err == nil
}

// modelTables are the tables but for the flow table and the source routes. Rings and targets are those of
// VIPs that the frame may be for.
func (w *World) modelTables(frame []byte) (*model.Tables, error) {
	t := &model.Tables{
		VIPs:    make(map[lb.VIP]model.VIP, len(w.VIPs)),
		Reals:   make(map[lb.RealID]lb.Real, len(w.Reals)),
		UDPIdle: w.UDPIdle, Decap: w.Decap, QUICLB: w.QUICLB,
	}
	for _, r := range w.Reals {
		t.Reals[r.ID] = r
	}
	for _, v := range w.VIPs {
		vip := model.VIP{Flows: v.Flows, Options: v.Options}
		if mayBeFor(frame, v.VIP) {
			vip.Ring = w.Tables.Slots(v.RingID)
			if v.Options.HasServerIDs() || v.Options.SourceRoutes {
				var err error
				if vip.Servers, vip.Routes, err = w.Tables.Targets(v.RingID); err != nil {
					return nil, err
				}
			}
		}
		t.VIPs[v.VIP] = vip
	}
	return t, nil
}

// mayBeFor tells whether the frame can be for the VIP: it has its address somewhere.
func mayBeFor(frame []byte, v lb.VIP) bool {
	return v.IsPrefix() || bytes.Contains(frame, v.Addr.AsSlice())
}

// entry is a VIP as the data plane has it.
func (w *World) entry(vip lb.VIP) lb.VIPEntry {
	for _, v := range w.VIPs {
		if v.VIP == vip {
			return v
		}
	}
	return lb.VIPEntry{VIP: vip}
}

// health is what the daemon knows of a real's.
func (w *World) health(r lb.Real) string {
	if w.Health == nil {
		return "not known: no daemon was asked"
	}
	if text := w.Health(lb.Target{VIP: r.VIP, Backend: r.Backend.Addr}); text != "" {
		return text
	}
	return "not checked"
}
