// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"
)

// Source reads from Consul. Replace may be called at any time and from several goroutines; Run is
// for one at a time. There is nothing to close.
type Source struct {
	*connections
	overlay, definitions string
	// bodies has buffers for the bodies of answers.
	bodies sync.Pool

	mu sync.Mutex
	// watches and claims are wanted; guarded by mu.
	watches []Watch
	claims  []ClaimRule
	// claimants are the services to read for claims; guarded by mu.
	claimants map[string]claimantState
	// changed holds a token while Run has to look at the above.
	changed chan struct{}

	// telling is held while an update is handed over.
	telling  sync.Mutex
	handOver func(Update)
}

// claimantState is what is known of a service that may claim VIPs. It is read as long as one of the
// two says that it is there: they are different questions, and may be answered by different servers.
type claimantState struct {
	// listed tells that the list of services has it.
	listed bool
	// gone tells that its own last answer was whole and empty.
	gone bool
}

// New makes a source. It reads certificates and environment, and sends nothing.
func New(c Config) (*Source, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	endpoints, err := newEndpoints(c.Client, timeouts{})
	if err != nil {
		return nil, err
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Source{
		connections: newConnections(c, endpoints, log),
		overlay:     c.Overlay, definitions: c.Definitions,
		bodies:  sync.Pool{New: func() any { return new(bytes.Buffer) }},
		watches: slices.Clone(c.Watches), claims: slices.Clone(c.Claims),
		claimants: make(map[string]claimantState), changed: make(chan struct{}, 1),
	}, nil
}

// Replace makes these the services to read and the claims to allow. Watches that stay the same go
// on; of those that go, no answer comes after those that are being handed over. The error is about
// the values; then nothing changes.
func (s *Source) Replace(watches []Watch, claims []ClaimRule) error {
	if err := errors.Join(validateWatches(watches), validateClaims(claims)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches, s.claims = slices.Clone(watches), slices.Clone(claims)
	s.wake()
	return nil
}

// wake has Run look at what is wanted.
func (s *Source) wake() {
	select {
	case s.changed <- struct{}{}:
	default: // a token is there already, and leads to the present state
	}
}

// Run reads and hands over until ctx ends; then it returns nil. Every watched thing is handed over
// when it was first read, whenever it may have changed, and whenever it cannot be read. Calls of
// handOver do not overlap; it should be quick, since others wait.
func (s *Source) Run(ctx context.Context, handOver func(Update)) error {
	s.handOver = handOver
	set := readers{running: make(map[readerKey]*running)}
	defer s.close()
	defer set.stopAll()
	s.wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
			set.replace(ctx, s.wanted())
		}
	}
}

// deliver hands an update over, unless the reader has been stopped meanwhile.
func (s *Source) deliver(ctx context.Context, u Update) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if ctx.Err() == nil {
		s.handOver(u)
	}
}

// wanted are the readers that should run now.
func (s *Source) wanted() map[readerKey]func(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := make(map[readerKey]func(context.Context))
	for _, w := range s.watches {
		set[readerKey{watch: w}] = func(ctx context.Context) { s.readService(ctx, w, false) }
	}
	if len(s.claims) > 0 {
		set[readerKey{kind: catalogueReader}] = s.readCatalogue
	}
	for service := range s.claimants {
		if s.allowed(service) {
			w := Watch{Name: service, Service: service}
			set[readerKey{kind: claimReader, watch: w}] = func(ctx context.Context) { s.readService(ctx, w, true) }
		}
	}
	for prefix, update := range map[string]func(*Pairs) Update{
		s.overlay:     func(p *Pairs) Update { return Update{Overlay: p} },
		s.definitions: func(p *Pairs) Update { return Update{Definitions: p} },
	} {
		if prefix != "" {
			set[readerKey{kind: folderReader, watch: Watch{Name: prefix}}] = func(ctx context.Context) { s.readFolder(ctx, prefix, update) }
		}
	}
	return set
}

// allowed tells whether some rule lets a service claim; mu is held.
func (s *Source) allowed(service string) bool {
	return slices.ContainsFunc(s.claims, func(r ClaimRule) bool { return r.matches(service) })
}

// readService follows the instances of a service.
func (s *Source) readService(ctx context.Context, w Watch, claims bool) {
	d := newDecoder()
	r := reader[[]Instance]{
		connections: s.connections,
		what:        "service " + quote(w.Service),
		status:      WatchStatus{Kind: serviceKind(claims), Name: w.Name},
		options: api.QueryOptions{
			Datacenter: w.Datacenter, Namespace: w.Namespace, Partition: w.Partition, Filter: w.filter(),
			// An agent answers blocking queries from its streaming cache, which knows neither whether
			// there is a leader nor what ACLs took away, unless it has to sort: then it asks a server.
			Near: "_agent",
		},
		ask: func(c *api.Client, o *api.QueryOptions) ([]Instance, *api.QueryMeta, error) {
			return s.instances(c, d, w.Service, o)
		},
		tell: func(list []Instance, f Facts, err error) {
			a := Answer{Name: w.Name, Claims: claims, Service: w.Service, Instances: list, Facts: f, Err: err}
			s.deliver(ctx, Update{Answer: &a})
			if claims {
				s.noteGone(ctx, w.Service, a.Problem() == "" && len(list) == 0)
			}
		},
	}
	r.run(ctx)
}

// filter is the watch's tag and filter as one expression.
func (w Watch) filter() string {
	if w.Tag == "" {
		return w.Filter
	}
	tag := `"` + w.Tag + `" in Service.Tags`
	if w.Filter == "" {
		return tag
	}
	return tag + " and (" + w.Filter + ")"
}

// instances asks for the instances of a service.
func (s *Source) instances(c *api.Client, d *decoder, service string, o *api.QueryOptions) ([]Instance, *api.QueryMeta, error) {
	body := s.bodies.Get().(*bytes.Buffer)
	defer s.bodies.Put(body)
	body.Reset()
	exchangeOf(o.Context()).body = body
	var ignored []struct{}
	meta, err := c.Raw().Query("/v1/health/service/"+service, &ignored, o)
	if err != nil {
		return nil, nil, err
	}
	list, err := d.decode(body.Bytes())
	return list, meta, err
}

// readFolder follows a folder of the key-value store.
func (s *Source) readFolder(ctx context.Context, prefix string, update func(*Pairs) Update) {
	r := reader[[]Pair]{
		connections: s.connections,
		what:        "folder " + quote(prefix),
		status:      WatchStatus{Kind: WatchFolder, Name: prefix},
		ask: func(c *api.Client, o *api.QueryOptions) ([]Pair, *api.QueryMeta, error) {
			return pairs(c, prefix, o)
		},
		tell: func(list []Pair, f Facts, err error) {
			s.deliver(ctx, update(&Pairs{Prefix: prefix, Pairs: list, Facts: f, Err: err}))
		},
	}
	r.run(ctx)
}

func pairs(c *api.Client, prefix string, o *api.QueryOptions) ([]Pair, *api.QueryMeta, error) {
	entries, meta, err := c.KV().List(prefix, o)
	if err != nil {
		return nil, nil, err
	}
	result := make([]Pair, 0, len(entries))
	for _, e := range entries {
		key, ok := strings.CutPrefix(e.Key, prefix)
		if !ok {
			return nil, nil, fmt.Errorf("key %s is not in the folder", quote(e.Key))
		}
		if key != "" {
			result = append(result, Pair{Key: key, Value: e.Value, Index: e.ModifyIndex})
		}
	}
	slices.SortFunc(result, func(a, b Pair) int { return strings.Compare(a.Key, b.Key) })
	return result, meta, nil
}

// readCatalogue follows the list of services, for those that may claim VIPs.
func (s *Source) readCatalogue(ctx context.Context) {
	r := reader[map[string][]string]{
		connections: s.connections,
		what:        "list of services",
		status:      WatchStatus{Kind: WatchCatalogue},
		ask: func(c *api.Client, o *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) {
			return c.Catalog().Services(o)
		},
		tell: func(tags map[string][]string, f Facts, err error) {
			if problem(err, f) == "" {
				s.noteListed(ctx, tags)
			}
		},
	}
	r.run(ctx)
}

// noteListed takes down which services may claim.
func (s *Source) noteListed(ctx context.Context, tags map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	for service := range s.claimants {
		s.note(service, func(c *claimantState) { c.listed = false })
	}
	for service, list := range tags {
		if mayClaim(list) {
			s.note(service, func(c *claimantState) { c.listed = true })
		}
	}
	s.wake()
}

// noteGone takes down whether a service that may claim has no instances.
func (s *Source) noteGone(ctx context.Context, service string, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.note(service, func(c *claimantState) { c.gone = gone })
		s.wake()
	}
}

// note changes what is known of a service, and forgets one that is not there; mu is held.
func (s *Source) note(service string, change func(*claimantState)) {
	c := s.claimants[service]
	change(&c)
	if c.gone && !c.listed {
		delete(s.claimants, service)
		return
	}
	s.claimants[service] = c
}
