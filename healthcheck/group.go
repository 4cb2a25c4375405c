// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"errors"
	"fmt"
)

// Policy says whose verdict counts where there are two: that of the local checks, and that of a
// catalogue which has checks of its own.
type Policy uint8

// The policies.
const (
	// PolicyLocal: the verdict of the local checks.
	PolicyLocal Policy = iota
	// PolicyConsul: the verdict of the catalogue.
	PolicyConsul
	// PolicyBoth: a server is up if both say so, and down if one says so.
	PolicyBoth
)

var policyNames = []string{"local", "consul", "both"}

func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// ParsePolicy reads what String writes.
func ParsePolicy(s string) (Policy, error) {
	for i, name := range policyNames {
		if s == name {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("policy %q is not local, consul or both", s)
}

// GroupRules say what the verdicts on its reals mean for a VIP.
type GroupRules struct {
	// Policy says whose verdict counts. Default: PolicyLocal.
	Policy Policy
	// MinHealthy is how many reals must be healthy for the VIP to be servable, 0 or more.
	// Default: 0; a VIP without any real that serves is never servable.
	MinHealthy int
	// FailOpen is a share of healthy reals in percent, 0 to 100: below it the checks are not
	// believed and all reals are kept. Default: 0, never.
	FailOpen int
}

// Validate reports all problems, each with the name of its field.
func (r GroupRules) Validate() error {
	var errs []error
	if int(r.Policy) >= len(policyNames) {
		errs = append(errs, fmt.Errorf("Policy: there is no %v", r.Policy))
	}
	if r.MinHealthy < 0 {
		errs = append(errs, fmt.Errorf("MinHealthy: %d is negative", r.MinHealthy))
	}
	if r.FailOpen < 0 || r.FailOpen > 100 {
		errs = append(errs, fmt.Errorf("FailOpen: %d is not from 0 to 100", r.FailOpen))
	}
	return errors.Join(errs...)
}

// Member is what is known of one real of a VIP.
type Member struct {
	// Local is the verdict of the local checks.
	Local Verdict
	// Outside is that of the catalogue; Unknown if it says nothing.
	Outside State
	// Serving tells that the real is in service now. It stays so while nothing is known.
	Serving bool
}

// MemberDecision is what becomes of a real, beside what it was made of.
type MemberDecision struct {
	Member
	// Combined is what the policy makes of the two verdicts.
	Combined State
	// Healthy tells that the real would be in service without fail-open.
	Healthy bool
	// Serve tells that the real shall get new flows, with Weight percent of its configured weight.
	// Weight is 0 only if the server itself asks for that.
	Serve  bool
	Weight int
}

// GroupDecision is what becomes of a VIP.
type GroupDecision struct {
	// Members are in the order that was given.
	Members []MemberDecision
	// Healthy counts the healthy members.
	Healthy int
	// FailOpen tells that the checks are not believed: all members serve.
	FailOpen bool
	// Servable tells that the VIP may be announced.
	Servable bool
	// Detail says for people why FailOpen is set or Servable is not; empty otherwise.
	Detail string
}

// Decide applies the rules to all reals of a VIP. It is a pure function.
func Decide(r GroupRules, members []Member) GroupDecision {
	d := GroupDecision{Members: make([]MemberDecision, len(members))}
	for i, m := range members {
		d.Members[i] = r.decide(m)
		if d.Members[i].Healthy {
			d.Healthy++
		}
	}
	d.FailOpen = len(members) > 0 && d.Healthy*100 < r.FailOpen*len(members)
	serving := d.Healthy
	if d.FailOpen {
		serving = len(members)
		for i := range d.Members {
			d.Members[i].keep()
		}
	}
	d.Servable = serving > 0 && d.Healthy >= r.MinHealthy
	d.Detail = r.explain(d)
	return d
}

func (r GroupRules) decide(m Member) MemberDecision {
	d := MemberDecision{Member: m, Combined: r.Policy.combine(m.Local.State, m.Outside)}
	d.Healthy = d.Combined == Up || d.Combined == Unknown && m.Serving
	d.Serve = d.Healthy
	if d.Serve {
		d.Weight = 100
		// Where another verdict made the decision, the local one has no weight to give.
		if m.Local.State == Up {
			d.Weight = m.Local.Weight
		}
	}
	return d
}

// keep has a member serve that is not healthy.
func (d *MemberDecision) keep() {
	if !d.Serve {
		d.Serve, d.Weight = true, 100
	}
}

func (p Policy) combine(local, outside State) State {
	switch {
	case p == PolicyLocal:
		return local
	case p == PolicyConsul:
		return outside
	case local == Down || outside == Down:
		return Down
	case local == Up && outside == Up:
		return Up
	}
	return Unknown
}

func (r GroupRules) explain(d GroupDecision) string {
	share := fmt.Sprintf("%d of %d reals are healthy", d.Healthy, len(d.Members))
	switch {
	case d.FailOpen && !d.Servable:
		return fmt.Sprintf("%s, less than %d%%: all are kept; but at least %d must be healthy", share, r.FailOpen, r.MinHealthy)
	case d.FailOpen:
		return fmt.Sprintf("%s, less than %d%%: all are kept", share, r.FailOpen)
	case !d.Servable && r.MinHealthy > 0:
		return fmt.Sprintf("%s, at least %d must be", share, r.MinHealthy)
	case !d.Servable:
		return share
	}
	return ""
}
