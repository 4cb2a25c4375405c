// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
)

// ConsulRead is one thing that is read from Consul, and how that ended.
type ConsulRead struct {
	// Service is the name in Consul; or Folder, the prefix of keys.
	Service, Folder string
	// Err says why there is no answer; it wraps nothing. Status is that of HTTP, 0 without a response.
	Err    error
	Status int
	// NoLeader, Filtered and Anonymous are why an answer is not believed.
	NoLeader, Filtered, Anonymous bool
	// Instances is how many there are of the service.
	Instances int
}

func (r ConsulRead) object() string {
	if r.Folder != "" {
		return "keys below " + r.Folder
	}
	return "service " + r.Service
}

// rule is the ACL rule that reading needs, in Consul's language.
func (r ConsulRead) rule() string {
	if r.Folder != "" {
		return fmt.Sprintf("key_prefix %q { policy = \"read\" }", r.Folder)
	}
	return fmt.Sprintf("service %q { policy = \"read\" } and node_prefix \"\" { policy = \"read\" }", r.Service)
}

func (b *Balancer) checkConsul(context.Context) (found []Finding) {
	for _, r := range b.Consul {
		found = append(found, b.consulRead(r))
	}
	if b.Setup.Claims {
		f := cannotTell("consul-claims", "", errors.New("whether the token may see all services that claim VIPs was not "+
			"asked"), "remora status --why, which shows what the daemon refuses")
		found = append(found, f)
	}
	if b.Setup.Registers {
		f := cannotTell("consul-register", "", errors.New("whether the token may register the balancer is known only by doing "+
			"it"), "the rule service \"NAME\" { policy = \"write\" } (configs/consul-policy.hcl); the daemon's log says if it is missing")
		found = append(found, f)
	}
	return gathered(found)
}

// httpForbidden is the status of an answer to a token that Consul does not know.
const httpForbidden = 403

func (b *Balancer) consulRead(r ConsulRead) Finding {
	const reach, rights = "consul", "consul-acl"
	cure := fmt.Sprintf("give the token the rule %s: configs/consul-policy.hcl has all that remora needs", r.rule())
	switch {
	case r.Status == httpForbidden:
		return fail(rights, r.object(), "Consul refuses the token: %v", r.Err).
			cure("`token_file:` in the section `consul:` of %s with a token that Consul knows; %s", b.Places.File, cure)
	case r.Status == 0 && r.Err != nil:
		return fail(reach, r.object(), "Consul is not reached: %v; the last known good servers stay", r.Err).
			cure("`addresses:` in the section `consul:` of %s, and: is the agent up? consul members", b.Places.File)
	case r.Err != nil:
		return fail(reach, r.object(), "Consul answers with status %d: %v; the last known good servers stay", r.Status, r.Err).
			cure("the log of the agent: journalctl -u consul")
	case r.NoLeader:
		return fail(reach, r.object(), "Consul knows no leader: its answers are not believed, and the last known good servers stay").
			cure("consul operator raft list-peers")
	case r.Anonymous:
		return fail(rights, r.object(), "no token is sent, and Consul denies by default: something may be left out, so the answer is not believed").
			cure("`token_file:` in the section `consul:` of %s; %s", b.Places.File, cure)
	case r.Filtered:
		return fail(rights, r.object(), "the token may not see all: something is left out, so the answer is not believed").cure("%s", cure)
	case r.Service != "" && r.Instances == 0:
		return warn("consul-service", r.object(), "Consul knows no instance of it").
			cure("register the servers, or mend `service:` in %s: consul catalog services", b.Places.File)
	}
	return fine(reach, r.object(), "Consul answers")
}

func (b *Balancer) checkHeld(context.Context) (found []Finding) {
	const id = "held"
	for _, h := range b.Daemon.Held {
		found = append(found, warn(id, h.Service, "rule %s: %s", h.Rule, h.Sentence).cure("%s; remora status --why", h.Release))
	}
	return gathered(found)
}
