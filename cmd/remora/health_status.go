// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// addHealth adds what the daemon's checks know, and what of backends the maps do not tell.
func (s *status) addHealth(answer *remorav1.GetStatusResponse) {
	vips := make(map[string]*remorav1.VIP)
	for _, service := range answer.Services {
		for _, v := range service.Vips {
			vips[v.Vip] = v
		}
	}
	for i := range s.VIPs {
		if v := vips[s.VIPs[i].VIP]; v != nil {
			s.VIPs[i].addHealth(v)
		}
	}
}

func (v *vipStatus) addHealth(answer *remorav1.VIP) {
	if g := answer.Health; g != nil {
		v.Health = &groupHealth{Checked: g.Checked, Healthy: g.Healthy, FailOpen: g.FailOpen, Servable: g.Servable, Detail: g.Detail}
	}
	reals := make(map[lb.RealID]*remorav1.Real)
	for _, r := range answer.Reals {
		reals[lb.RealID(r.Id)] = r
	}
	for i := range v.Reals {
		known := reals[v.Reals[i].ID]
		v.Reals[i].ServerID, v.Reals[i].Routed = known.GetServerId(), known.GetRouted()
		if h := known.GetHealth(); h != nil {
			v.Reals[i].Health = newRealHealth(h)
		}
	}
}

// groupHealth is what the checks of a VIP's reals mean together.
type groupHealth struct {
	Checked  uint32 `json:"checked"`
	Healthy  uint32 `json:"healthy"`
	FailOpen bool   `json:"fail_open"`
	Servable bool   `json:"servable"`
	Detail   string `json:"detail,omitempty"`
}

// realHealth is what the checks of a real say. Local is their verdict, Outside the catalogue's.
type realHealth struct {
	Local       string    `json:"local"`
	Outside     string    `json:"outside"`
	Since       time.Time `json:"since"`
	Reason      string    `json:"reason,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	Percent     uint32    `json:"percent"`
	Suppressed  bool      `json:"suppressed,omitempty"`
	Fault       string    `json:"fault,omitempty"`
	FaultDetail string    `json:"fault_detail,omitempty"`
}

func newRealHealth(h *remorav1.Health) *realHealth {
	return &realHealth{
		Local: healthWord(h.Local), Outside: healthWord(h.Outside), Since: h.Since.AsTime(), Reason: h.Reason, Detail: h.Detail,
		Percent: h.Percent, Suppressed: h.Suppressed, Fault: h.Fault, FaultDetail: h.FaultDetail,
	}
}

// healthWord: the API's numbers are those of healthcheck, and none in the first place.
func healthWord(s remorav1.HealthState) string {
	return healthcheck.State(max(s, remorav1.HealthState_HEALTH_STATE_UNKNOWN) - 1).String()
}

// words are what the checks say, for the table; empty if nothing is known.
func (h *realHealth) words() string {
	switch {
	case h == nil:
		return ""
	case h.Suppressed:
		return "down, flapping"
	case h.Local == "down":
		return "down, " + cmp.Or(h.Fault, h.Reason)
	case h.Outside == "down":
		return h.Local + ", the catalogue says down"
	case h.Fault != "":
		return h.Local + ", " + h.Fault
	case h.Local == "up" && h.Percent < 100:
		return fmt.Sprintf("up, %d%% of its weight", h.Percent)
	}
	return h.Local
}

// state is a real's STATE: what its checks say, and what else there is to say.
func (r realStatus) state() string {
	health := r.Health.words()
	switch {
	case health == "":
		return r.State
	case r.State == "ok":
		return health
	}
	return health + "; " + r.State
}
