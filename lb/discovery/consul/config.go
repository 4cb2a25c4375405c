// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package consul is the source of backends that a Consul catalogue names. It reads: every watched
// service, the claims of services on VIPs, and two folders of the key-value store, each by blocking
// queries of its own, so that one that fails neither blanks nor delays the others. What it reads it
// hands over with the facts of the answer; whether an answer is to be believed is the receiver's to
// judge (Answer.Problem says what speaks against it).
//
// The rest of the package is pure functions over answers: Judge (instance to backend), Resolve
// (claims to services), ParseOverlay and Overlay.Apply (operators' overrides), Digest. Beside the
// reader there are the Registrar, which registers the balancer itself, and the DrainLimit, which
// keeps a fleet from draining too many balancers at once.
package consul

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path"
	"strings"
	"time"
)

// Config is how Consul is reached and what is read. Start from DefaultConfig. Fields of Client that
// are empty are taken from the CONSUL_* environment.
type Config struct {
	// Log receives changes of state and problems; nil discards them.
	Log *slog.Logger
	// Client is how Consul is reached.
	Client ClientConfig
	// Watches are the services to read. Default none.
	Watches []Watch
	// Claims allow services to claim VIPs. Default none: no claims are read.
	Claims []ClaimRule
	// Overlay is the prefix of operators' overrides in the key-value store. Default "": not read.
	Overlay string
	// Definitions is the prefix of whole service definitions in the key-value store. Default "":
	// not read.
	Definitions string
	// Consistency is asked of every read. Default ConsistencyDefault.
	Consistency Consistency
	// MaxStale is the age up to which ConsistencyStale takes an answer; an older one is asked for
	// again with the default consistency. Default 10 s; more than 0.
	MaxStale time.Duration
	// Wait is how long Consul may keep a query when nothing changes. Default 60 s; 1 s to 10
	// minutes. It is also the time after which a watch that Consul forgot to wake notices.
	Wait time.Duration
	// Grace is added to Wait (and its jitter of a sixteenth) before a query counts as stuck.
	// Default 10 s; at least 100 ms.
	Grace time.Duration
	// Retry says when a failed query is made again.
	Retry Retry
	// Connections is the greatest number of queries at once over plain HTTP, where each has a
	// connection of its own. Default 160; 1 to 100000. If there are more watches, they take turns,
	// and a change can take up to Wait to be seen. Consul allows an address 200 connections
	// (limits.http_max_conns_per_client). Over HTTPS, HTTP/2 carries all queries in a few
	// connections and this has no effect.
	Connections int
}

// Retry is when failed queries are made again. The delay doubles from Min to Max, and each is
// shortened at random by up to a half, so that watches that failed together do not retry together.
// An answer's Retry-After makes it longer, up to Max.
type Retry struct {
	// Min is the delay after the first failure. Default 250 ms; more than 0.
	Min time.Duration
	// Max bounds the delay. Default 30 s; at least Min.
	Max time.Duration
}

// Watch is a service to read.
type Watch struct {
	// Name identifies the watch in its answers. Required; unique.
	Name string
	// Service is the name in Consul. Required; any text without slashes.
	Service string
	// Tag, if not empty, is a tag that instances must have. No quotation mark or backslash.
	Tag string
	// Filter, if not empty, is an expression that instances must match, in Consul's filter
	// language.
	Filter string
	// Datacenter, Namespace and Partition, if not empty, replace those of Client.
	Datacenter, Namespace, Partition string
}

// ClaimRule allows services to claim VIPs. Where two services claim one VIP, the earlier rule wins.
type ClaimRule struct {
	// Services are names in Consul, or patterns of path.Match such as "web-*". At least one.
	Services []string
	// Prefixes hold the addresses that may be claimed. At least one.
	Prefixes []netip.Prefix
}

// Consistency is what Consul promises of a read.
type Consistency string

// The consistencies.
const (
	// ConsistencyDefault reads from the leader, which may be wrong for moments after it lost its
	// office.
	ConsistencyDefault Consistency = "default"
	// ConsistencyStale reads from any server: the load is spread, and answers may be MaxStale old.
	ConsistencyStale Consistency = "stale"
	// ConsistencyConsistent has the leader ask its peers at each read.
	ConsistencyConsistent Consistency = "consistent"
)

// DefaultConfig is the configuration with all defaults, and nothing to read.
func DefaultConfig() Config {
	return Config{
		Consistency: ConsistencyDefault,
		MaxStale:    10 * time.Second,
		Wait:        time.Minute,
		Grace:       10 * time.Second,
		Retry:       Retry{Min: 250 * time.Millisecond, Max: 30 * time.Second},
		Connections: 160,
	}
}

const (
	minWait        = time.Second
	maxWait        = 10 * time.Minute
	minGrace       = 100 * time.Millisecond
	maxConnections = 100_000
)

// Validate reports all problems, each with the path of its field.
func (c Config) Validate() error {
	var p problems
	p.add(c.Client.Validate())
	p.add(validateWatches(c.Watches))
	p.add(validateClaims(c.Claims))
	switch c.Consistency {
	case ConsistencyDefault, ConsistencyStale, ConsistencyConsistent:
	default:
		p.addf("Consistency: %q is not default, stale or consistent", c.Consistency)
	}
	if c.MaxStale <= 0 {
		p.addf("MaxStale: %v is not more than 0", c.MaxStale)
	}
	if c.Wait < minWait || c.Wait > maxWait {
		p.addf("Wait: %v is not %v to %v", c.Wait, minWait, maxWait)
	}
	if c.Grace < minGrace {
		p.addf("Grace: %v is less than %v", c.Grace, minGrace)
	}
	if c.Connections < 1 || c.Connections > maxConnections {
		p.addf("Connections: %d is not 1 to %d", c.Connections, maxConnections)
	}
	p.add(c.Retry.validate())
	p.add(validatePrefixes(c.Overlay, c.Definitions))
	return p.err()
}

func (r Retry) validate() error {
	var p problems
	if r.Min <= 0 {
		p.addf("Retry.Min: %v is not more than 0", r.Min)
	}
	if r.Max < r.Min {
		p.addf("Retry.Max: %v is less than Retry.Min", r.Max)
	}
	return p.err()
}

// validatePrefixes refuses prefixes of the key-value store that cannot be told apart.
func validatePrefixes(overlay, definitions string) error {
	var p problems
	p.add(validatePrefix("Overlay", overlay))
	p.add(validatePrefix("Definitions", definitions))
	if overlay != "" && definitions != "" && (strings.HasPrefix(overlay, definitions) || strings.HasPrefix(definitions, overlay)) {
		p.addf("Overlay: %q and Definitions %q are one in the other", overlay, definitions)
	}
	return p.err()
}

func validatePrefix(field, prefix string) error {
	if prefix != "" && (strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/")) {
		return fmt.Errorf("%s: %q does not end in a slash, or begins with one", field, prefix)
	}
	return nil
}

func validateWatches(watches []Watch) error {
	var p problems
	names := make(map[string]bool, len(watches))
	for i, w := range watches {
		if w.Name == "" {
			p.addf("Watches[%d].Name: missing", i)
		} else if names[w.Name] {
			p.addf("Watches[%d].Name: %q is there twice", i, w.Name)
		}
		names[w.Name] = true
		if w.Service == "" || strings.ContainsAny(w.Service, "/\x00") {
			p.addf("Watches[%d].Service: %q is not a name without slashes", i, w.Service)
		}
		if strings.ContainsAny(w.Tag, "\"\\\n\r") {
			p.addf("Watches[%d].Tag: %q has a quotation mark, a backslash or a line end", i, w.Tag)
		}
	}
	return p.err()
}

func validateClaims(rules []ClaimRule) error {
	var p problems
	for i, r := range rules {
		if len(r.Services) == 0 {
			p.addf("Claims[%d].Services: empty", i)
		}
		for k, name := range r.Services {
			if _, err := path.Match(name, ""); err != nil || name == "" || strings.Contains(name, "/") {
				p.addf("Claims[%d].Services[%d]: %q is not a name or pattern without slashes", i, k, name)
			}
		}
		if len(r.Prefixes) == 0 {
			p.addf("Claims[%d].Prefixes: empty", i)
		}
		for k, prefix := range r.Prefixes {
			if !prefix.IsValid() || prefix != prefix.Masked() {
				p.addf("Claims[%d].Prefixes[%d]: %v is not a prefix without host bits", i, k, prefix)
			}
		}
	}
	return p.err()
}

// problems gathers what is wrong with a configuration.
type problems []error

func (p *problems) addf(format string, args ...any) { p.add(fmt.Errorf(format, args...)) }

func (p *problems) add(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

func (p problems) err() error { return errors.Join(p...) }
