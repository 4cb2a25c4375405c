// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package healthcheck finds out whether servers answer. It has four parts that know little of each
// other: probes, each one question to one address; the judgement, a pure type that makes a verdict
// of results; the scheduler, which asks many such questions without bursts; and the diagnosis, a
// pure function that names the broken part of a path. It knows no services, rings or maps.
package healthcheck

import (
	"context"
	"net/netip"
	"reflect"
	"time"
)

// Target is where a probe goes and what its packets carry.
type Target struct {
	// Addr is the destination. Its port is not used by ICMP.
	Addr netip.AddrPort
	// Mark is the mark of the probe's packets (SO_MARK), 0 for none. It needs CAP_NET_ADMIN or
	// CAP_NET_RAW.
	Mark uint32
	// Source is the address that the packets come from. Default: the kernel chooses.
	Source netip.Addr
	// Interface is the name of the interface that the packets must use. Default: the kernel
	// chooses.
	Interface string
}

// Probe asks one question. Probes have no state: Check may be called concurrently and for any
// target, and every call makes connections of its own, since an old connection says nothing about
// a new one. The deadline is in the context; when it passes or the context is cancelled, Check
// returns at once and leaves no socket or process behind.
type Probe interface {
	Check(ctx context.Context, t Target) Result
}

// Kind is the configuration of a probe: TCP, SYN, HTTP, GRPC, DNS, UDP, ICMP or Exec.
type Kind interface {
	// Validate reports all problems, each with the name of its field.
	Validate() error
	// Probe makes the probe; it reads the files that the configuration names.
	Probe() (Probe, error)
}

// Same tells whether two probes ask the same question: they were made from equal configurations
// whose files had the same content. Probes that are not from this package must be the same value.
func Same(a, b Probe) bool {
	p, ok := a.(*probe)
	q, both := b.(*probe)
	if ok && both {
		return p == q || reflect.DeepEqual(p.kind, q.kind) && reflect.DeepEqual(p.files, q.files)
	}
	return !ok && !both && reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// probe is every kind of probe.
type probe struct {
	kind Kind
	// files are the contents of the files that the kind names.
	files [][]byte
	// ask returns an error if the server did not pass.
	ask func(ctx context.Context, t Target) (answer, error)
}

// answer is what a server that passed has said.
type answer struct {
	// detail is a sentence for people, empty if there is nothing to say.
	detail string
	// weight is the weight that the server asks for, if hasWeight.
	weight    int
	hasWeight bool
}

// Check implements Probe.
func (p *probe) Check(ctx context.Context, t Target) Result {
	start := time.Now()
	r := p.result(ctx, t)
	r.Duration = time.Since(start)
	return r
}

func (p *probe) result(ctx context.Context, t Target) Result {
	addr := t.Addr.Addr().Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return Result{Reason: Local, Detail: "the target has no address, or one with a zone"}
	}
	t.Addr = netip.AddrPortFrom(addr, t.Addr.Port())
	a, err := p.ask(ctx, t)
	if err != nil {
		return failed(ctx, err)
	}
	return Result{Detail: a.detail, Weight: a.weight, HasWeight: a.hasWeight}
}
