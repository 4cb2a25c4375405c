// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// connections is what the readers of one Source share.
type connections struct {
	endpoints []*endpoint
	// slots, per endpoint, is what limits the queries at once; nil where there is no limit.
	slots []chan struct{}
	// readers is how many readers there are.
	readers  atomic.Int64
	watching watching

	wait, grace time.Duration
	retry       Retry
	consistency Consistency
	maxStale    time.Duration
	log         *slog.Logger
}

func newConnections(c Config, endpoints []*endpoint, log *slog.Logger) *connections {
	n := &connections{
		endpoints: endpoints, slots: make([]chan struct{}, len(endpoints)),
		wait: c.Wait, grace: c.Grace, retry: c.Retry, consistency: c.Consistency, maxStale: c.MaxStale, log: log,
	}
	for i, e := range endpoints {
		if !e.multiplex {
			n.slots[i] = make(chan struct{}, c.Connections)
		}
	}
	return n
}

// enter waits for the right to query an endpoint. Leave gives it back. There is no leave if the
// context ended first.
func (n *connections) enter(ctx context.Context, endpoint int) (leave func()) {
	slots := n.slots[endpoint]
	if slots == nil {
		return func() {}
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }
	case <-ctx.Done():
		return nil
	}
}

// patience is how long a query at an endpoint may wait for news. If the readers take turns, all of
// them have theirs within the configured wait.
func (n *connections) patience(endpoint int) time.Duration {
	readers, slots := n.readers.Load(), int64(cap(n.slots[endpoint]))
	if n.slots[endpoint] == nil || readers <= slots {
		return n.wait
	}
	return max(minWait, time.Duration(int64(n.wait)*slots/readers))
}

func (n *connections) close() {
	for _, e := range n.endpoints {
		e.transport.inner.CloseIdleConnections()
	}
}

// reader follows one thing in Consul by blocking queries. It belongs to the goroutine that runs it.
type reader[T any] struct {
	*connections
	// what is read, for errors: `service "web"`.
	what    string
	options api.QueryOptions
	ask     func(*api.Client, *api.QueryOptions) (T, *api.QueryMeta, error)
	// tell receives whatever may be new, and every failure.
	tell func(T, Facts, error)

	// status is what is told of this reader.
	status WatchStatus

	at       cursor
	endpoint int
	failures int
	pace     pace
	// told is the index of the answer that was handed over last.
	told uint64
}

// run reads until ctx ends.
func (r *reader[T]) run(ctx context.Context) {
	r.readers.Add(1)
	defer r.readers.Add(-1)
	defer r.watching.begin(&r.status)()
	for ctx.Err() == nil {
		pause := r.pace.next(time.Now())
		if pause <= 0 || sleep(ctx, pause) {
			sleep(ctx, r.step(ctx))
		}
	}
}

// sleep waits; it returns false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// step makes one query, and returns how long to wait before the next.
func (r *reader[T]) step(ctx context.Context) time.Duration {
	leave := r.enter(ctx, r.endpoint)
	if leave == nil {
		return 0
	}
	value, facts, retryAfter, err := r.query(ctx)
	leave()
	if ctx.Err() != nil {
		return 0
	}
	whole := problem(err, facts) == ""
	r.watching.note(&r.status, facts, whole)
	if !whole {
		return r.failed(value, facts, retryAfter, err)
	}
	next, changed, backwards := r.at.advance(facts.Index)
	if backwards {
		r.log.Warn("Consul's index went backwards: reading anew", "source", r.what, "from", uint64(r.at), "to", facts.Index)
		r.at = 0
		return 0
	}
	if r.failures > 0 {
		r.log.Info("Consul answers again", "source", r.what, "address", facts.Address, "failures", r.failures)
	}
	r.at, r.failures = next, 0
	if changed {
		facts.Backwards, r.told = facts.Index < r.told, facts.Index
		r.tell(value, facts, nil)
	}
	return 0
}

// failed hands a failure over and goes on to the next address. Of an answer that is not whole the
// index is worth nothing: it is asked for again, without waiting for a change.
func (r *reader[T]) failed(value T, facts Facts, retryAfter time.Duration, err error) time.Duration {
	r.failures++
	if r.failures == 1 {
		r.log.Warn("cannot read from Consul", "source", r.what, "reason", problem(err, facts))
	}
	r.at = 0
	r.endpoint = (r.endpoint + 1) % len(r.endpoints)
	r.tell(value, facts, err)
	return max(r.retry.delay(r.failures, rand.Float64()), min(retryAfter, r.retry.Max))
}

// query asks once. A stale answer that is too old is asked for again from the leader, on the spot.
func (r *reader[T]) query(ctx context.Context) (T, Facts, time.Duration, error) {
	o := r.options
	o.WaitIndex, o.WaitTime = uint64(r.at), r.patience(r.endpoint)
	o.AllowStale = r.consistency == ConsistencyStale
	o.RequireConsistent = r.consistency == ConsistencyConsistent
	value, facts, retryAfter, err := r.exchange(ctx, o)
	if err == nil && o.AllowStale && facts.LastContact > r.maxStale {
		o.AllowStale, o.WaitIndex = false, 0
		return r.exchange(ctx, o)
	}
	return value, facts, retryAfter, err
}

// exchange sends a query and waits for the answer, but not for ever.
func (r *reader[T]) exchange(ctx context.Context, o api.QueryOptions) (value T, f Facts, retryAfter time.Duration, err error) {
	e := r.endpoints[r.endpoint]
	// Consul lengthens the wait by up to a sixteenth.
	deadline := o.WaitTime + o.WaitTime/16 + r.grace
	limited, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	var x exchange
	value, meta, err := r.ask(e.client, o.WithContext(withExchange(limited, &x)))
	f = Facts{Address: e.address, At: time.Now(), Status: x.status}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil {
			err = fmt.Errorf("no answer within %v", deadline)
		}
		return value, f, x.retryAfter, fmt.Errorf("read %s at %q: %v", r.what, e.address, cause(err))
	}
	f.Index, f.KnownLeader, f.LastContact = meta.LastIndex, meta.KnownLeader, meta.LastContact
	f.FilteredByACLs, f.Anonymous = meta.ResultsFilteredByACLs, x.anonymous && meta.DefaultACLPolicy == "deny"
	return value, f, 0, nil
}

// cause is an error of the client in our words, and not longer than can be read.
func cause(err error) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		return err
	}
	hint := ""
	if status.Code == http.StatusTooManyRequests {
		hint = " (Consul limits connections by limits.http_max_conns_per_client)"
	}
	return fmt.Errorf("HTTP status %d: %s%s", status.Code, quote(status.Body), hint)
}
