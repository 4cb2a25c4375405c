// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// This file translates between the configuration, the reader of Consul, and the governor.

// ConsulSource is the name of Consul among the sources that are governed.
const ConsulSource = "consul"

// ConsulClient is how Consul is reached.
func ConsulClient(c config.Consul) consul.ClientConfig {
	return consul.ClientConfig{
		Addresses: c.Addresses, Token: c.Token, TokenFile: c.TokenFile,
		Datacenter: c.Datacenter, Namespace: c.Namespace, Partition: c.Partition,
		TLS: consul.TLSConfig(c.TLS),
	}
}

// ConsulConfig is the reader's part of the configuration.
func ConsulConfig(c *config.Config, log *slog.Logger) consul.Config {
	r := consul.DefaultConfig()
	r.Log, r.Client = log, ConsulClient(c.Consul)
	r.Watches, r.Claims = watches(c), claimRules(c)
	r.Overlay = c.Consul.Overlay
	if c.Consul.Definitions != nil {
		r.Definitions = c.Consul.Definitions.Folder
	}
	r.Consistency, r.MaxStale = consul.Consistency(c.Consul.Consistency), c.Consul.MaxStale
	r.Wait, r.Connections = c.Consul.Wait, c.Consul.Connections
	return r
}

// watches are the services to read, each named as it is in the file.
func watches(c *config.Config) []consul.Watch {
	var list []consul.Watch
	for name, s := range c.Sources {
		list = append(list, consul.Watch{
			Name: name, Service: s.Service, Tag: s.Tag, Filter: s.Filter,
			Datacenter: s.Datacenter, Namespace: s.Namespace, Partition: s.Partition,
		})
	}
	return list
}

func claimRules(c *config.Config) []consul.ClaimRule {
	var rules []consul.ClaimRule
	for _, r := range c.Consul.Claims {
		rules = append(rules, consul.ClaimRule(r))
	}
	return rules
}

func governorConfig(g config.Governor) governor.Config {
	return governor.Config{
		MaxReals: g.Reals, MaxWeightPercent: g.Percent, Step: g.Step, Hold: g.Hold, EmptyHold: g.EmptyHold,
		Damping: governor.Damping{
			Suppress: float64(g.Suppress), Reuse: float64(g.Reuse), HalfLife: g.HalfLife, MaxSuppress: g.MaxSuppress,
		},
	}
}

// ConsulRules say, by service of the file, how instances become its backends.
func ConsulRules(c *config.Config) map[string]consul.Rules {
	vips, prefixes := fileVIPs(c)
	rules := make(map[string]consul.Rules)
	for _, s := range c.Services {
		source, ok := c.Sources[s.Name]
		if !ok {
			continue
		}
		r := consul.Rules{TaggedAddress: source.TaggedAddress, Warning: consul.WarningWeight, VIPs: vips, VIPPrefixes: prefixes}
		if source.DrainWarning {
			r.Warning = consul.WarningDrain
		}
		for _, v := range s.VIPs {
			r.Ports = append(r.Ports, v.VIP.Port)
		}
		rules[s.Name] = r
	}
	return rules
}

// fileVIPs are the addresses of the file's VIPs, and the prefixes of those that are one.
func fileVIPs(c *config.Config) (vips map[netip.Addr]bool, prefixes []netip.Prefix) {
	vips = make(map[netip.Addr]bool)
	for _, s := range c.Services {
		for _, v := range s.VIPs {
			if v.VIP.IsPrefix() {
				prefixes = append(prefixes, v.VIP.Prefix())
			} else {
				vips[v.VIP.Addr] = true
			}
		}
	}
	return vips, prefixes
}

// fault is the governor's rule that an answer breaks of which something speaks against its being
// whole.
func fault(f consul.Facts, err error) governor.Rule {
	switch {
	case err == nil && !f.KnownLeader:
		return governor.RuleNoLeader
	case err == nil:
		return governor.RuleFiltered
	case f.Status == 0:
		return governor.RuleUnreachable
	case f.Status != http.StatusOK:
		return governor.RuleStatus
	}
	return governor.RuleDecode
}

// Usable are the backends that instances are by their verdicts, if nothing is held back, and what cannot
// be used among them.
func Usable(verdicts []consul.Verdict) ([]lb.Backend, []Refusal) {
	list, refused := governed(verdicts)
	return backendsOf(list), refused
}

// governed are the backends of verdicts, and what was refused among them.
func governed(verdicts []consul.Verdict) (list []governor.Backend, refused []Refusal) {
	for _, v := range verdicts {
		b := governor.Backend{Backend: v.Backend}
		switch v.State {
		case consul.Active:
		case consul.Drain:
			b.State = governor.Drain
		case consul.Down:
			b.State = governor.Down
		default:
			refused = append(refused, Refusal{Object: v.ID.String(), Reason: v.Reason})
			continue
		}
		list = append(list, b)
	}
	return list, refused
}

// backendsOf is what the engine makes of what the governor accepted.
func backendsOf(list []governor.Backend) []lb.Backend {
	backends := make([]lb.Backend, 0, len(list))
	for _, b := range list {
		switch b.State {
		case governor.Drain:
			b.Weight = 0
		case governor.Down:
			b.Down = true
		}
		backends = append(backends, b.Backend)
	}
	return backends
}
