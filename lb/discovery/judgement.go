// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// Refusal is something that a source says and that cannot be used.
type Refusal struct {
	// Service may be empty. Object is an instance, a claim or a key.
	Service, Object, Reason string
}

// Judgement is what is told of the judgement. It is not changed.
type Judgement struct {
	Services []governor.Service
	// Complete tells that all that the file reads has been read as a whole.
	Complete bool
	// Leaves are what is configured for VIPs that are defined in Consul.
	Leaves   map[lb.VIP]lb.Leave
	Held     []governor.Hold
	Refused  []Refusal
	Counters governor.Counters
	// Unheard are the services of the file of which nothing is known yet.
	Unheard []string
	source  *consul.Source
}
