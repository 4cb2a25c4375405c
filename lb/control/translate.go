// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

func statusToAPI(s Status) *remorav1.GetStatusResponse {
	m := &remorav1.GetStatusResponse{
		Version:   s.Version,
		Instance:  s.Instance,
		Settled:   s.Settled,
		Changes:   s.Changes,
		LastApply: timeToAPI(s.LastApply),
		LastError: s.LastError,
	}
	for _, i := range s.Interfaces {
		m.Interfaces = append(m.Interfaces, &remorav1.Interface{Name: i.Name, Mode: modeToAPI(i.Mode), ModeReason: i.ModeReason})
	}
	for _, p := range s.Problems {
		m.Problems = append(m.Problems, problemToAPI(p))
	}
	for _, service := range s.Services {
		sm := &remorav1.Service{Name: service.Name}
		for _, v := range service.VIPs {
			sm.Vips = append(sm.Vips, vipToAPI(v))
		}
		m.Services = append(m.Services, sm)
	}
	if s.BGP != nil {
		m.Bgp = bgpToAPI(s.BGP)
	}
	m.FlowTable = flowTableToAPI(s.Flows)
	if l := s.Metrics; l != nil {
		m.Metrics = &remorav1.MetricsListener{Listen: l.Listen, Serving: l.Serving, Error: l.Error}
	}
	return m
}

func bgpToAPI(b *BGP) *remorav1.BGP {
	m := &remorav1.BGP{Drained: b.Drained, DrainedSince: timeToAPI(b.DrainedSince)}
	for _, s := range b.Sessions {
		m.Sessions = append(m.Sessions, &remorav1.BGPSession{
			Peer: addrToAPI(s.Peer), Asn: s.ASN, State: s.State, Since: timeToAPI(s.Since),
			LastError: s.LastError, LastErrorAt: timeToAPI(s.LastErrorAt), Routes: uint32(s.Routes), Bfd: s.BFD,
		})
	}
	for _, v := range b.VIPs {
		m.Vips = append(m.Vips, &remorav1.Announcement{
			Vip: v.VIP.String(), State: announceStateToAPI(v.State), Since: timeToAPI(v.Since),
			Code: v.Code, Reason: v.Reason, Announced: v.Announced,
		})
	}
	return m
}

func flowTableToAPI(f FlowTable) *remorav1.FlowTable {
	m := &remorav1.FlowTable{Capacity: uint64(f.Capacity), Flows: uint64(f.Flows)}
	for event, n := range f.Events {
		m.Events = append(m.Events, &remorav1.FlowEvent{Event: lb.FlowEvent(event).String(), Count: n})
	}
	return m
}

func problemToAPI(p Problem) *remorav1.Problem {
	return &remorav1.Problem{Service: p.Service, Vip: vipToText(p.VIP), Backend: addrToAPI(p.Backend), Text: p.Text}
}

func vipToAPI(v VIP) *remorav1.VIP {
	m := &remorav1.VIP{
		Vip:      v.VIP.String(),
		RingSize: v.Ring.Size,
		RingHash: ringHashToAPI(v.Ring.Hash),
		FlowMode: flowModeToAPI(v.Flows),
		Options:  v.Options.Names(),
	}
	if !v.Held {
		m.Slots = &remorav1.SlotCounts{
			Stable:    uint32(v.Slots[lb.SlotStable]),
			Moving:    uint32(v.Slots[lb.SlotMoving]),
			Settling:  uint32(v.Slots[lb.SlotSettling]),
			Lingering: uint32(v.Slots[lb.SlotLingering]),
		}
	}
	for _, r := range v.Reals {
		m.Reals = append(m.Reals, realToAPI(r))
	}
	if g := v.Health; g != nil {
		m.Health = &remorav1.HealthGroup{
			Checked: uint32(g.Checked), Healthy: uint32(g.Healthy), FailOpen: g.FailOpen, Servable: g.Servable, Detail: g.Detail,
		}
	}
	return m
}

// healthToAPI is unset for nil.
func healthToAPI(h *Health) *remorav1.Health {
	if h == nil {
		return nil
	}
	return &remorav1.Health{
		Local: healthStateToAPI(h.Local), Outside: healthStateToAPI(h.Outside), Since: timeToAPI(h.Since),
		Reason: h.Reason, Detail: h.Detail, Percent: uint32(h.Percent), Suppressed: h.Suppressed,
		Fault: h.Fault, FaultDetail: h.FaultDetail,
	}
}

func realToAPI(r Real) *remorav1.Real {
	m := &remorav1.Real{
		Id:            uint32(r.ID),
		Backend:       addrToAPI(r.Backend.Addr),
		Weight:        r.Backend.Weight,
		Encapsulation: encapToAPI(r.Tunnel.Encap),
		Use:           useToAPI(r.Use),
		Slots:         uint32(r.Slots),
		PreviousSlots: uint32(r.PreviousSlots),
		Flows:         uint32(r.Flows),
		ActiveFlows:   uint32(r.Active),
		Packets:       r.Packets,
		Bytes:         r.Bytes,
		NextHop:       &remorav1.NextHop{Problem: r.NextHop.Problem},
		Health:        healthToAPI(r.Health),
		ServerId:      r.Backend.ServerID,
		Routed:        r.Backend.Routed,
	}
	if a := r.Absence; a.Cause != CauseNone {
		m.Absence = &remorav1.Absence{Cause: causeToAPI(a.Cause), Since: timeToAPI(a.Since), Until: timeToAPI(a.Until)}
	}
	if r.NextHop.Resolved() {
		m.NextHop.Mac = net.HardwareAddr(r.NextHop.MAC[:]).String()
		m.NextHop.MtuBytes = uint32(r.NextHop.MTU)
		m.NextHop.Stale = r.NextHop.Stale
	}
	return m
}

func drainsToAPI(drains []Drain) []*remorav1.DrainProgress {
	var list []*remorav1.DrainProgress
	for _, d := range drains {
		list = append(list, &remorav1.DrainProgress{
			Vip:         d.VIP.String(),
			Backend:     addrToAPI(d.Backend),
			State:       drainStateToAPI(d.State),
			Since:       timeToAPI(d.Since),
			Deadline:    timeToAPI(d.Deadline),
			SlotsLeft:   uint32(d.Slots),
			FlowsLeft:   uint32(d.Flows),
			ActiveFlows: uint32(d.Active),
		})
	}
	return list
}

func importedToAPI(im Imported) *remorav1.ImportStateResponse {
	return &remorav1.ImportStateResponse{
		Rings:        uint32(im.Rings),
		RingsSkipped: uint32(im.RingsSkipped),
		Flows:        uint32(im.Flows),
		FlowsSkipped: uint32(im.FlowsSkipped),
	}
}

// maxTimeout bounds a drain, to a time that every format of dates can say.
const maxTimeout = 365 * 24 * time.Hour

// timeoutFromAPI is 0 if there is none.
func timeoutFromAPI(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	timeout := d.AsDuration()
	if d.CheckValid() != nil || timeout <= 0 || timeout > maxTimeout {
		return 0, &Error{
			Code:    CodeInvalid,
			Object:  "timeout",
			Problem: fmt.Sprintf("timeout: %v is not more than 0 and at most %v", timeout, maxTimeout),
			Cure:    "leave it out for the time that is configured",
		}
	}
	return timeout, nil
}

// timeToAPI is unset for the zero time.
func timeToAPI(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// addrToAPI is empty for the zero address.
func addrToAPI(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// The API's enumerations have the values of this package's in the same order, and none in the first
// place.

func modeToAPI(m Mode) remorav1.Mode { return remorav1.Mode(m) + 1 }

func ringHashToAPI(h lb.RingHash) remorav1.RingHash { return remorav1.RingHash(h) + 1 }

func flowModeToAPI(m lb.FlowMode) remorav1.FlowMode { return remorav1.FlowMode(m) + 1 }

func encapToAPI(e lb.Encap) remorav1.Encapsulation { return remorav1.Encapsulation(e) + 1 }

func healthStateToAPI(s HealthState) remorav1.HealthState { return remorav1.HealthState(s) + 1 }

func useToAPI(u lb.RealUse) remorav1.RealUse { return remorav1.RealUse(u) + 1 }

func drainStateToAPI(s DrainState) remorav1.DrainState { return remorav1.DrainState(s) + 1 }

func announceStateToAPI(s AnnounceState) remorav1.AnnounceState { return remorav1.AnnounceState(s) + 1 }

// causeToAPI: here none is a value of its own, which the API does not send.
func causeToAPI(c Cause) remorav1.Cause { return remorav1.Cause(c) }
