// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"time"
)

// Update is one thing read from Consul, or the failure to read it. Exactly one field is set. What it
// holds may be kept, but not changed: answers share what they have in common.
type Update struct {
	Answer      *Answer
	Overlay     *Pairs
	Definitions *Pairs
}

// Answer is all that Consul says of one watched service.
type Answer struct {
	// Name is the watch's; that of an answer for claims is Service.
	Name string
	// Claims tells that the service is read for its claims, not for a Watch.
	Claims  bool
	Service string
	// Instances are in Consul's order, which means nothing.
	Instances []Instance
	Facts     Facts
	// Err says why there is no answer; Instances is then empty, and of Facts only Address, Status
	// and At are set.
	Err error
}

// Pairs is a folder of the key-value store.
type Pairs struct {
	Prefix string
	// Pairs are ordered by key.
	Pairs []Pair
	Facts Facts
	// Err is as in Answer.
	Err error
}

// Pair is one entry of the key-value store.
type Pair struct {
	// Key is the part after the prefix.
	Key   string
	Value []byte
	// Index changes with every write.
	Index uint64
}

// Facts are the circumstances of an answer.
type Facts struct {
	// Address is the agent or server that answered, as configured.
	Address string
	// At is when the answer had been read.
	At time.Time
	// Status is the HTTP status; 0 if there was no response.
	Status int
	// Index is Consul's index of the answer.
	Index uint64
	// Backwards tells that the index is lower than that of the answer before: Consul lost its state
	// or restored an older one, or the server that answered is behind the one that did before.
	Backwards bool
	// KnownLeader is false while the servers have no leader; the answer may then be empty or old.
	KnownLeader bool
	// LastContact is how long ago the server that answered had heard of the leader.
	LastContact time.Duration
	// FilteredByACLs tells that the token may not see all, and that something was left out.
	FilteredByACLs bool
	// Anonymous tells that no token was sent although Consul denies what no token allows. Consul
	// does not tell such a reader that something was left out.
	Anonymous bool
}

// Problem says what speaks against an answer being whole; empty if nothing does.
func (a *Answer) Problem() string { return problem(a.Err, a.Facts) }

// Problem says what speaks against the folder being whole; empty if nothing does.
func (p *Pairs) Problem() string { return problem(p.Err, p.Facts) }

func problem(err error, f Facts) string {
	switch {
	case err != nil:
		return err.Error()
	case !f.KnownLeader:
		return fmt.Sprintf("Consul at %q knows no leader", f.Address)
	case f.Anonymous:
		return "no ACL token, and Consul denies by default: something may have been left out"
	case f.FilteredByACLs:
		return "the ACL token may not see all: something was left out"
	}
	return ""
}
