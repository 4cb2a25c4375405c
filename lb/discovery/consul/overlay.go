// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Action is what an override does.
type Action string

// The actions.
const (
	// ActionDrain drains backends, whatever their checks say.
	ActionDrain Action = "drain"
	// ActionWeight multiplies the weight of backends.
	ActionWeight Action = "weight"
	// ActionFreeze keeps the service's present backends, whatever Consul says of them.
	ActionFreeze Action = "freeze"
)

// Override is an operator's wish, one JSON document in the key-value store:
//
//	{"service": "web", "action": "weight", "backend": "10.0.0.11", "factor": 0.5,
//	 "author": "ada", "reason": "slow disk", "expires": "2030-01-02T15:04:05Z"}
type Override struct {
	// Key is where the document lies.
	Key string `json:"-"`
	// Service is the service's name in remora; "*" stands for all, except with freeze.
	Service string `json:"service"`
	Action  Action `json:"action"`
	// Backend or Node says whom drain and weight are about: an address, or all instances of a node
	// of Consul. Exactly one of them; none with freeze.
	Backend netip.Addr `json:"backend"`
	Node    string     `json:"node"`
	// Factor is what ActionWeight multiplies by: more than 0, to 100. A weight stays 1 to 1000000.
	Factor float64 `json:"factor"`
	// Author and Reason are for people. Both required.
	Author string `json:"author"`
	Reason string `json:"reason"`
	// Expires is when the override ends. Required: what nobody remembers must not last.
	Expires time.Time `json:"expires"`
}

const (
	maxFactor      = 100
	maxDocument    = 16 << 10
	anyService     = "*"
	maxOverlayText = 512
)

// Overlay is a set of valid overrides, ordered by key.
type Overlay []Override

// BadDocument is an entry of the key-value store that is no override, and is ignored.
type BadDocument struct {
	Key    string
	Reason string
}

// ParseOverlay reads the documents of a folder. What is no override is reported and ignored, and
// does not keep the others from counting. Both results are in the order of the keys.
func ParseOverlay(pairs []Pair) (Overlay, []BadDocument) {
	var overlay Overlay
	var bad []BadDocument
	for _, p := range pairs {
		if strings.HasSuffix(p.Key, "/") && len(p.Value) == 0 {
			continue // what Consul's own pages store for an empty folder
		}
		o, err := parseOverride(p)
		if err != nil {
			bad = append(bad, BadDocument{p.Key, err.Error()})
			continue
		}
		overlay = append(overlay, o)
	}
	slices.SortStableFunc(overlay, func(a, b Override) int { return strings.Compare(a.Key, b.Key) })
	slices.SortStableFunc(bad, func(a, b BadDocument) int { return strings.Compare(a.Key, b.Key) })
	return overlay, bad
}

// parseOverride reads one document, strictly: a misspelt field would be a wish that goes unheard.
func parseOverride(p Pair) (Override, error) {
	if len(p.Value) > maxDocument {
		return Override{}, fmt.Errorf("%d bytes are more than %d", len(p.Value), maxDocument)
	}
	dec := json.NewDecoder(bytes.NewReader(p.Value))
	dec.DisallowUnknownFields()
	o := Override{Key: p.Key}
	if err := dec.Decode(&o); err != nil {
		return Override{}, fmt.Errorf("not an override: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Override{}, errors.New("not an override: something follows the document")
	}
	return o, o.validate()
}

func (o Override) validate() error {
	var p problems
	if o.Service == "" || o.Service == anyService && o.Action == ActionFreeze {
		p.addf("service: %s is not the name of a service", quote(o.Service))
	}
	switch o.Action {
	case ActionDrain, ActionWeight:
		if o.Backend.IsValid() == (o.Node != "") {
			p.addf("action %s needs a backend or a node, and not both", o.Action)
		}
	case ActionFreeze:
		if o.Backend.IsValid() || o.Node != "" {
			p.addf("action freeze is about a service: no backend or node")
		}
	default:
		p.addf("action: %s is not drain, weight or freeze", quote(string(o.Action)))
	}
	if o.Action == ActionWeight && (o.Factor <= 0 || o.Factor > maxFactor) {
		p.addf("factor: %v is not more than 0, to %d", o.Factor, maxFactor)
	}
	if o.Action != ActionWeight && o.Factor != 0 {
		p.addf("factor: only action weight has one")
	}
	p.add(validateText("author", o.Author))
	p.add(validateText("reason", o.Reason))
	if o.Expires.IsZero() {
		p.addf("expires: missing")
	}
	return p.err()
}

func validateText(field, text string) error {
	if strings.TrimSpace(text) == "" {
		return fmt.Errorf("%s: missing", field)
	}
	if len(text) > maxOverlayText {
		return fmt.Errorf("%s: %d bytes are more than %d", field, len(text), maxOverlayText)
	}
	return nil
}

// Frozen is the override that freezes a service at a time, if there is one.
func (o Overlay) Frozen(service string, now time.Time) (Override, bool) {
	for _, d := range o {
		if d.Action == ActionFreeze && d.Service == service && now.Before(d.Expires) {
			return d, true
		}
	}
	return Override{}, false
}

// Apply returns the verdicts of a service with the overrides that are in force at a time. A drain
// goes before a weight; of several overrides of one kind the one with the least key counts. An
// override is told in the verdict's reason.
func (o Overlay) Apply(service string, verdicts []Verdict, now time.Time) []Verdict {
	result := slices.Clone(verdicts)
	for i := range result {
		v := &result[i]
		if v.State == Refused {
			continue
		}
		if d, ok := o.find(ActionWeight, service, *v, now); ok && v.Backend.Weight > 0 {
			v.Backend.Weight = scale(v.Backend.Weight, d.Factor)
			v.Reason = d.describe()
		}
		if d, ok := o.find(ActionDrain, service, *v, now); ok {
			v.State, v.Reason = Drain, d.describe()
		}
	}
	return result
}

// find is the first override of a kind that is about an instance.
func (o Overlay) find(a Action, service string, v Verdict, now time.Time) (Override, bool) {
	for _, d := range o {
		named := d.Service == service || d.Service == anyService
		meant := d.Node != "" && d.Node == v.ID.Node || d.Backend.IsValid() && d.Backend == v.Backend.Addr
		if d.Action == a && named && meant && now.Before(d.Expires) {
			return d, true
		}
	}
	return Override{}, false
}

func scale(weight uint32, factor float64) uint32 {
	return uint32(min(max(math.Round(float64(weight)*factor), 1), maxWeight))
}

func (o Override) describe() string {
	what := string(o.Action)
	if o.Action == ActionWeight {
		what = fmt.Sprintf("weight times %v", o.Factor)
	}
	return fmt.Sprintf("%s until %s by %s: %s", what, o.Expires.UTC().Format(time.RFC3339), quote(o.Author), quote(o.Reason))
}

// NextExpiry is when the first override that is in force ends; zero if none is. The overlay must be
// applied again then.
func (o Overlay) NextExpiry(now time.Time) time.Time {
	var next time.Time
	for _, d := range o {
		if now.Before(d.Expires) && (next.IsZero() || d.Expires.Before(next)) {
			next = d.Expires
		}
	}
	return next
}

// Backends are the backends of verdicts: active with their weights, draining with weight 0. The
// others are left out.
func Backends(verdicts []Verdict) []lb.Backend {
	var list []lb.Backend
	for _, v := range verdicts {
		switch v.State {
		case Active:
			list = append(list, v.Backend)
		case Drain:
			list = append(list, lb.Backend{Addr: v.Backend.Addr, ServerID: v.Backend.ServerID})
		}
	}
	return list
}
