// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

// This file translates between the configuration and the health checks.

// Checks are what the checks of one service have in common. They are not changed.
type Checks struct {
	config.Health
	probe healthcheck.Probe
	rules healthcheck.Rules
	group healthcheck.GroupRules
}

// newChecks reads the files that the configuration names.
func newChecks(h config.Health) (c Checks, err error) {
	c = Checks{Health: h, rules: rulesOf(h)}
	if c.probe, err = kindOf(h).Probe(); err != nil {
		return c, err
	}
	if err := c.rules.Validate(); err != nil {
		return c, err
	}
	policy, err := healthcheck.ParsePolicy(h.Policy)
	c.group = healthcheck.GroupRules{Policy: policy, MinHealthy: h.MinHealthy, FailOpen: h.FailOpen}
	return c, err
}

func rulesOf(h config.Health) healthcheck.Rules {
	return healthcheck.Rules{
		Rise: h.Rise, Fall: h.Fall, UpInterval: h.Interval, DownInterval: h.DownInterval, Jitter: h.Jitter,
		Initial:   initialState(h.Initial),
		Damping:   healthcheck.Damping(h.Damping),
		SlowStart: healthcheck.SlowStart(h.SlowStart),
	}
}

func initialState(i config.Initial) healthcheck.State {
	switch i {
	case config.InitialUp:
		return healthcheck.Up
	case config.InitialDown:
		return healthcheck.Down
	}
	return healthcheck.Unknown
}

func kindOf(h config.Health) healthcheck.Kind {
	switch h.Kind {
	case config.KindSYN:
		return healthcheck.SYN{}
	case config.KindHTTP, config.KindHTTPS:
		return httpKind(h)
	case config.KindGRPC:
		return healthcheck.GRPC{Service: h.GRPC.Service, Authority: h.GRPC.Authority, TLS: tlsOf(h.TLS)}
	case config.KindDNS:
		return healthcheck.DNS{Name: h.DNS.Name, Type: h.DNS.Type, TCP: h.DNS.TCP, Rcode: h.DNS.Rcode, Answer: h.DNS.Answer}
	case config.KindUDP:
		return healthcheck.UDP(h.UDP)
	case config.KindICMP:
		return healthcheck.ICMP{}
	case config.KindExec:
		return healthcheck.Exec(h.Exec)
	}
	return healthcheck.TCP{}
}

func httpKind(h config.Health) healthcheck.HTTP {
	k := healthcheck.HTTP{
		Method: h.HTTP.Method, Path: h.HTTP.Path, Host: h.HTTP.Host, Headers: h.HTTP.Headers,
		ExpectHeaders: h.HTTP.ExpectHeaders, ExpectBody: h.HTTP.ExpectBody,
		WeightHeader: h.HTTP.WeightHeader, WeightBody: h.HTTP.WeightBody,
		TLS: tlsOf(h.TLS),
	}
	for _, s := range h.HTTP.Status {
		k.Status = append(k.Status, healthcheck.StatusRange(s))
	}
	return k
}

func tlsOf(t *config.TLSCheck) *healthcheck.TLS {
	if t == nil {
		return nil
	}
	converted := healthcheck.TLS(*t)
	return &converted
}

// tunnelled tells whether probes go through the tunnel.
func (c Checks) tunnelled() bool { return !c.Direct }

// tunnelledTo tells whether those to a real do: to this machine there is none.
func (c Checks) tunnelledTo(r lb.Real) bool {
	return c.tunnelled() && r.Tunnel.Encap != lb.Local
}
