// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// DefaultTimeout is the default of Check.Timeout.
const DefaultTimeout = time.Second

// Check is one question that is asked again and again.
type Check struct {
	Probe  Probe
	Target Target
	// Server is what the limit of probes at a time is for. Default: the target's address.
	Server netip.Addr
	// Timeout is how long one probe may take, 1 ms to 1 min. Default: 1 s.
	Timeout time.Duration
	Rules   Rules
}

// Validate reports all problems, each with the name of its field.
func (c Check) Validate() error {
	var errs []error
	if c.Probe == nil {
		errs = append(errs, errors.New("Probe: is not set"))
	}
	if a := c.Target.Addr.Addr(); !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		errs = append(errs, fmt.Errorf("Target.Addr: %q is no address, has a zone, or is IPv4-mapped", c.Target.Addr))
	}
	if s := c.Target.Source; s.IsValid() && s.Is4() != c.Target.Addr.Addr().Is4() {
		errs = append(errs, fmt.Errorf("Target.Source: %s is of another family than %s", s, c.Target.Addr.Addr()))
	}
	if c.Timeout != 0 && (c.Timeout < time.Millisecond || c.Timeout > time.Minute) {
		errs = append(errs, fmt.Errorf("Timeout: %v is not from 1ms to 1m", c.Timeout))
	}
	return errors.Join(append(errs, c.Rules.Validate())...)
}

// withDefaults fills in the fields that were left zero.
func (c Check) withDefaults() Check {
	if !c.Server.IsValid() {
		c.Server = c.Target.Addr.Addr()
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	c.Rules = c.Rules.withDefaults()
	return c
}

// same tells whether two checks ask the same and judge the same.
func (c Check) same(d Check) bool {
	return c.Target == d.Target && c.Server == d.Server && c.Timeout == d.Timeout && c.Rules == d.Rules && Same(c.Probe, d.Probe)
}

// connectsOnly tells that the check's probe is a TCP connection and nothing more.
func (c Check) connectsOnly() bool {
	p, ok := c.Probe.(*probe)
	if !ok {
		return false
	}
	k, ok := p.kind.(TCP)
	return ok && k.Size == 0
}

// task is a check in the scheduler. A check that is changed gets a new task, so that the results
// of the old question do not count for the new one.
type task[ID comparable] struct {
	id        ID
	check     Check
	judgement Judgement
	last      Result
	lastAt    time.Time
	// gone tells that the task was replaced or removed.
	gone bool

	// due is when the task is looked at next: to start a probe or, while it connects, because the
	// time is over. index is its place in the queue, -1 while it is not there.
	due   time.Time
	index int
	// planned is when the last probe was due, started when it began.
	planned, started time.Time
	// cancel ends the probe in flight, connection is the one being made; nil if there is none.
	cancel     context.CancelFunc
	connection *connection
	// failed is the outcome of a connection that failed at once.
	failed error
}

// inFlight tells that a probe has begun and not ended.
func (t *task[ID]) inFlight() bool {
	return t.cancel != nil || t.connection != nil || t.failed != nil
}

// next is when the next probe is due: an interval after the last one was, so that the checks keep
// their distances. What was missed meanwhile is not made up for.
func (t *task[ID]) next(now time.Time, u float64) time.Time {
	due := t.planned.Add(t.judgement.Interval(u))
	if due.Before(now) {
		return now
	}
	return due
}

// queue holds tasks by the time they are due. It implements heap.Interface.
type queue[ID comparable] []*task[ID]

func (q queue[ID]) Len() int           { return len(q) }
func (q queue[ID]) Less(i, k int) bool { return q[i].due.Before(q[k].due) }

func (q queue[ID]) Swap(i, k int) {
	q[i], q[k] = q[k], q[i]
	q[i].index, q[k].index = i, k
}

func (q *queue[ID]) Push(x any) {
	t := x.(*task[ID])
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue[ID]) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = -1
	return t
}

// put places a task that is not in the queue, or moves it.
func (q *queue[ID]) put(t *task[ID], due time.Time) {
	t.due = due
	if t.index >= 0 {
		heap.Fix(q, t.index)
		return
	}
	heap.Push(q, t)
}

// drop takes a task out, if it is in.
func (q *queue[ID]) drop(t *task[ID]) {
	if t.index >= 0 {
		heap.Remove(q, t.index)
	}
}
