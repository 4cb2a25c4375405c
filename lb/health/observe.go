// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"github.com/remora-lb/remora/healthcheck"
)

// observe takes changed verdicts.
func (h *Health) observe(changes []healthcheck.Change[checkID]) {
	h.handing.Lock()
	defer h.handing.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range changes {
		p := h.patients[c.ID.Target]
		switch {
		case p == nil: // gone meanwhile
		case c.ID.fullSize:
			h.observeFullSize(p, c)
		default:
			h.observeOne(p, c)
		}
	}
	h.decide()
}

func (h *Health) observeOne(p *patient, c healthcheck.Change[checkID]) {
	p.verdict, p.heard = c.New, true
	if c.Old.State == c.New.State {
		return // the weight
	}
	h.events.Emit(healthEvent(p.service, c))
	if c.New.State != healthcheck.Down {
		p.diagnosis = healthcheck.Diagnosis{}
		return
	}
	h.callDoctor(c.ID.Target)
}

// observeFullSize logs what becomes of full-size packets to a backend that is otherwise well.
func (h *Health) observeFullSize(p *patient, c healthcheck.Change[checkID]) {
	log := h.log.With("service", p.service, "vip", c.ID.VIP, "real", c.ID.Backend)
	d := fullSizeFault(c.New.State, c.Result)
	switch {
	case p.verdict.State == healthcheck.Down:
	case d.Fault != healthcheck.NoFault:
		log.Warn("full-size packets do not reach the real", "fault", d.Fault, "detail", d.Detail)
	case c.Old.State == healthcheck.Down:
		log.Info("full-size packets reach the real")
	}
}

// fullSizeFault is what the full-size probe of a backend says of the path. Without a connection it
// says nothing of sizes.
func fullSizeFault(s healthcheck.State, last healthcheck.Result) healthcheck.Diagnosis {
	if s != healthcheck.Down || last.Reason == healthcheck.Timeout || last.Reason == healthcheck.Refused {
		return healthcheck.Diagnosis{}
	}
	return healthcheck.Diagnose(healthcheck.Parts{Padded: &last})
}
