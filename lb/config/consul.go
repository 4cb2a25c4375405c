// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Consul is how Consul is reached and what is read from it. What is empty is taken from the CONSUL_*
// environment.
type Consul struct {
	// Addresses are agents or servers, tried in this order. Default none: the environment's.
	Addresses []string
	// Token and TokenFile are the ACL token, or a file that holds it.
	Token, TokenFile string
	// Datacenter, Namespace and Partition are those of all queries.
	Datacenter, Namespace, Partition string
	TLS                              ConsulTLS
	// Consistency is default, stale or consistent. Default "default".
	Consistency string
	// MaxStale is the age up to which a stale answer counts. 1 ms to 1 h; default 10 s.
	MaxStale time.Duration
	// Wait is how long Consul may keep a query when nothing changes. 1 s to 10 min; default 60 s.
	Wait time.Duration
	// Connections is the number of queries at one time over plain HTTP. 1 to 100000; default 160.
	Connections int
	// Overlay is the prefix of operators' overrides in the key-value store, with a slash at its end.
	// Default none: none are read.
	Overlay string
	// Claims allow services of Consul to claim VIPs. Default none.
	Claims []ConsulClaim
	// Definitions, if not nil, say which services may be defined in the key-value store, and where.
	// Default nil: none.
	Definitions *ConsulDefinitions
	// DrainLimit, if not nil, is how many balancers may drain at one time. Default nil: any number.
	DrainLimit *ConsulDrainLimit
	// TCP and UDP say how VIPs of either protocol are balanced that are claimed or defined in Consul: as
	// the file's defaults say. Their VIP is zero. They are zero if nothing is.
	TCP, UDP lb.ServiceVIP
	// Register, if not nil, says how the balancer registers itself. Default nil: it does not.
	Register *ConsulRegister
}

// ConsulTLS is for addresses with https: files of certificates and keys, and the name that the
// server's certificate must have.
type ConsulTLS struct {
	CAFile, CAPath, CertFile, KeyFile, ServerName string
}

// ConsulClaim lets services whose names match one of the patterns claim VIPs of the prefixes.
type ConsulClaim struct {
	Services []string
	Prefixes []netip.Prefix
}

// ConsulDefinitions lets keys of a folder define services whose names match one of the patterns, with
// VIPs of the prefixes. The folder has a slash at its end.
type ConsulDefinitions struct {
	Folder string
	ConsulClaim
}

// ConsulDrainLimit lets so many balancers drain at one time that share a folder of the key-value store.
type ConsulDrainLimit struct {
	// Balancers is 1 to 1000; default 1. All must agree on it.
	Balancers int
	// Folder has a slash at its end. Default "remora/drain/".
	Folder string
}

// ConsulRegister is the balancer's own entry in Consul.
type ConsulRegister struct {
	// Name is the service's, ID is unique on the node. Default "remora" for both.
	Name, ID string
	// TTL is the time after which Consul holds a silent balancer for dead. 3 s to 24 h; default 30 s.
	TTL time.Duration
}

// ConsulSource says that the backends of a service are the instances of a service in Consul.
type ConsulSource struct {
	// Service is its name in Consul. Tag and Filter, if not empty, restrict the instances.
	Service, Tag, Filter string
	// Datacenter, Namespace and Partition, if not empty, replace those of Consul.
	Datacenter, Namespace, Partition string
	// TaggedAddress, if not empty, is the name of the tagged address to use.
	TaggedAddress string
	// DrainWarning drains instances that warn. Default false: they have their weight for that.
	DrainWarning bool
}

// DefaultConsul is the one with all defaults.
func DefaultConsul() Consul {
	return Consul{Consistency: "default", MaxStale: 10 * time.Second, Wait: time.Minute, Connections: 160}
}

// ReadsConsul tells whether anything is read from Consul.
func (c *Config) ReadsConsul() bool {
	return len(c.Sources) > 0 || len(c.Consul.Claims) > 0 || c.Consul.Definitions != nil
}

func checkConsul(s consulSection, r *report) Consul {
	def := DefaultConsul()
	return Consul{
		Addresses: checkConsulAddresses(s.addresses, r),
		Token:     s.token.value, TokenFile: s.tokenFile.value,
		Datacenter: s.datacenter.value, Namespace: s.namespace.value, Partition: s.partition.value,
		TLS: checkConsulTLS(s.tls, r),
		Consistency: choose(r, s.consistency, def.Consistency, choice[string]{"default", "default"},
			choice[string]{"stale", "stale"}, choice[string]{"consistent", "consistent"}),
		MaxStale:    duration(r, s.maxStale, time.Millisecond, time.Hour, def.MaxStale),
		Wait:        duration(r, s.wait, time.Second, 10*time.Minute, def.Wait),
		Connections: int(within(r, s.connections, 1, 100_000, int64(def.Connections))),
		Overlay:     checkConsulFolder(s.overlay, r),
		Claims:      checkConsulClaims(s.claims, r),
		Definitions: checkConsulDefinitions(s, r),
		DrainLimit:  checkConsulDrainLimit(s.drainLimit, r),
		Register:    checkConsulRegister(s.register, r),
	}
}

// claimed is how VIPs of a protocol are balanced that are claimed.
func (s *services) claimed(p lb.Protocol) lb.ServiceVIP {
	v := lb.ServiceVIP{Encap: s.encap, Ring: lb.Ring{Size: lb.DefaultRingSize, Hash: lb.MaglevV2}, Tunnel: s.tunnel}
	v.Flows, v.Leave = s.flows.of(p)
	return v
}

func checkConsulAddresses(l list[field[string]], r *report) (addresses []string) {
	for _, f := range l.items {
		if !f.ok {
			continue
		}
		scheme, rest, cut := strings.Cut(f.value, "://")
		if !cut {
			scheme, rest = "http", f.value
		}
		known := scheme == "unix" && strings.HasPrefix(rest, "/") || scheme == "http" || scheme == "https"
		if !known || rest == "" || strings.ContainsAny(rest, " ?#@") {
			r.add(f.place, "%s is not an address of Consul: expected HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", quote(f.text))
			continue
		}
		addresses = append(addresses, f.value)
	}
	return addresses
}

func checkConsulTLS(s consulTLSSection, r *report) ConsulTLS {
	if s.certFile.given != s.keyFile.given {
		at, missing := s.certFile.place, "key_file"
		if s.keyFile.given {
			at, missing = s.keyFile.place, "cert_file"
		}
		r.add(at, "%s is missing beside it: expected both or none", missing)
	}
	return ConsulTLS{s.caFile.value, s.caPath.value, s.certFile.value, s.keyFile.value, s.serverName.value}
}

// checkConsulFolder reads the prefix of a folder of the key-value store.
func checkConsulFolder(f field[string], r *report) string {
	if f.ok && (strings.HasPrefix(f.value, "/") || !strings.HasSuffix(f.value, "/")) {
		r.add(f.place, "%s is not a folder: expected a slash at the end and none at the beginning, such as remora/overlay/", quote(f.text))
	}
	return f.value
}

func checkConsulClaims(l list[consulClaimSection], r *report) (claims []ConsulClaim) {
	for _, s := range l.items {
		if !s.ok {
			continue
		}
		claims = append(claims, checkConsulClaim(s, r))
		s.demand(s.services, "services", "the names of services that may claim VIPs, or patterns such as web-*", r)
		s.demand(s.prefixes, "prefixes", "the prefixes of addresses that may be claimed", r)
	}
	return claims
}

func checkConsulClaim(s consulClaimSection, r *report) (c ConsulClaim) {
	for _, f := range s.services.items {
		if _, err := path.Match(f.value, ""); f.ok && (err != nil || badConsulName(f.value)) {
			r.add(f.place, "%s is not a name in Consul or a pattern: expected one such as web or web-*", quote(f.text))
		}
		c.Services = append(c.Services, f.value)
	}
	for _, f := range s.prefixes.items {
		if p, ok := checkClaimedPrefix(f, r); ok {
			c.Prefixes = append(c.Prefixes, p)
		}
	}
	return c
}

// checkConsulDefinitions reads what may be defined. Its folder and that of the overlay must be apart.
func checkConsulDefinitions(c consulSection, r *report) *ConsulDefinitions {
	s := c.definitions
	if !s.given {
		return nil
	}
	d := &ConsulDefinitions{Folder: checkConsulFolder(s.folder, r), ConsulClaim: checkConsulClaim(s.rule, r)}
	if !s.folder.given {
		r.add(s.field("folder"), "missing: expected a folder of the key-value store, such as remora/services/")
	}
	if o := c.overlay.value; s.folder.ok && c.overlay.ok && (strings.HasPrefix(o, d.Folder) || strings.HasPrefix(d.Folder, o)) {
		r.add(s.folder.place, "%s and the overlay, %s, are one in the other: expected folders of their own", quote(s.folder.text), quote(c.overlay.text))
	}
	s.rule.demand(s.rule.services, "services", "the names of services that may be defined, or patterns such as web-*", r)
	s.rule.demand(s.rule.prefixes, "prefixes", "the prefixes of addresses that may be VIPs of such services", r)
	return d
}

func checkConsulDrainLimit(s consulDrainLimitSection, r *report) *ConsulDrainLimit {
	if !s.given {
		return nil
	}
	d := &ConsulDrainLimit{Balancers: int(within(r, s.balancers, 1, 1000, 1)), Folder: "remora/drain/"}
	if s.folder.given {
		d.Folder = checkConsulFolder(s.folder, r)
	}
	return d
}

// demand reports a list that is missing or empty.
func (s consulClaimSection) demand(l list[field[string]], name, want string, r *report) {
	switch {
	case !l.given:
		r.add(s.field(name), "missing: expected %s", want)
	case l.ok && len(l.items) == 0:
		r.add(l.place, "empty: expected %s", want)
	}
}

func checkClaimedPrefix(f field[string], r *report) (netip.Prefix, bool) {
	if !f.ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(f.value)
	if err != nil || p.Addr().Is4In6() {
		r.add(f.place, "%s is not a prefix: expected one such as 192.0.2.0/24", quote(f.text))
		return p, false
	}
	if p != p.Masked() {
		r.add(f.place, "%s has bits behind the prefix: expected %s", quote(f.text), p.Masked())
	}
	return p, true
}

func checkConsulRegister(s consulRegisterSection, r *report) *ConsulRegister {
	if !s.given {
		return nil
	}
	c := &ConsulRegister{Name: "remora", ID: "remora", TTL: duration(r, s.ttl, 3*time.Second, 24*time.Hour, 30*time.Second)}
	for _, one := range []struct {
		field field[string]
		into  *string
	}{{s.name, &c.Name}, {s.id, &c.ID}} {
		if !one.field.ok {
			continue
		}
		if badConsulName(one.field.value) {
			r.add(one.field.place, "%s is not a name in Consul: expected one without slashes", quote(one.field.text))
		}
		*one.into = one.field.value
	}
	return c
}

// badConsulName tells whether a text cannot be a name in Consul: it stands in paths of its API.
func badConsulName(s string) bool { return s == "" || strings.ContainsAny(s, "/\x00") }

// checkServiceSource reads the source of a service's backends.
func checkServiceSource(s serviceSection, r *report) (ConsulSource, bool) {
	if !s.source.given {
		return ConsulSource{}, false
	}
	if s.backends.given {
		r.add(s.source.place, "the service has backends, too (line %d): expected one of both", s.backends.line)
	}
	c := s.source.consul
	if !c.given {
		if !c.tried {
			r.add(s.source.field("consul"), "missing: expected where the backends come from, such as {service: web}")
		}
		return ConsulSource{}, false
	}
	if !c.service.given {
		r.add(c.field("service"), "missing: expected the name of the service in Consul")
	} else if c.service.ok && badConsulName(c.service.value) {
		r.add(c.service.place, "%s is not a name in Consul: expected one without slashes", quote(c.service.text))
	}
	if c.tag.ok && strings.ContainsAny(c.tag.value, "\"\\\n\r") {
		r.add(c.tag.place, "%s is not a tag: expected one without quotation marks, backslashes and line ends", quote(c.tag.text))
	}
	return ConsulSource{
		Service: c.service.value, Tag: c.tag.value, Filter: c.filter.value,
		Datacenter: c.datacenter.value, Namespace: c.namespace.value, Partition: c.partition.value,
		TaggedAddress: c.taggedAddress.value,
		DrainWarning:  choose(r, c.warning, false, choice[bool]{"weight", false}, choice[bool]{"drain", true}),
	}, true
}
