// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
)

// ChurnBalancer is a balancer under test: control plane and packet program. Its methods are called by
// one goroutine at a time.
type ChurnBalancer interface {
	// Program is the packet program. It stays the same.
	Program() *ebpf.Program
	// Apply makes the fleet the wanted one, and returns once packets are balanced so.
	Apply(ctx context.Context, f Fleet) error
	// HandOver gives history and remembered flows to another balancer, and returns once that one
	// balances packets by them.
	HandOver(ctx context.Context, to ChurnBalancer) error
	// Close ends the balancer, and returns how many packets it did not forward.
	Close() (refused uint64, err error)
}

// ChurnSettings say what kind of balancer is wanted.
type ChurnSettings struct {
	VIP    lb.ServiceVIP
	Window time.Duration
	// Servers is how many there may be at once, Flows how many may be remembered.
	Servers, Flows int
	NextHop        lb.NextHop
}

// churnRun is one scenario in one mode.
type churnRun struct {
	o        ChurnOptions
	scenario Scenario
	rng      *rand.Rand // of the scenario
	servers  *servers
	clients  *clients
	judge    *judge
	wire     *wire

	// road is held while packets are under way, and by a scenario that changes ways. It guards what
	// follows.
	road      sync.Mutex
	balancers [churnBalancers]ChurnBalancer // nil once killed
	ways      [churnPaths]byte              // the balancer of each path
	flooding  bool
	refused   uint64
	floodRng  *rand.Rand
}

// newChurnRun makes balancers and wire. close must be called, also after an error.
func newChurnRun(o ChurnOptions, s Scenario, mode lb.FlowMode) (*churnRun, error) {
	r := &churnRun{
		o: o, scenario: s, rng: rand.New(rand.NewPCG(o.Seed, 1)), servers: newServers(o.Servers),
		clients:  newClients(rand.New(rand.NewPCG(o.Seed, 2)), o.Flows, o.opening(), o.Window*9/10),
		floodRng: rand.New(rand.NewPCG(o.Seed, 3)),
	}
	r.judge = &judge{servers: r.servers, window: o.Window, tally: newTally()}
	vip := lb.ServiceVIP{
		VIP:   lb.VIP{Addr: addresses().vip4, Port: 80, Protocol: lb.TCP},
		Ring:  lb.Ring{Size: lb.DefaultRingSize},
		Flows: mode, Leave: s.leave, Tunnel: lb.DefaultTunnelSources(),
	}
	var err error
	if r.wire, err = openWire(vip.VIP); err != nil {
		return r, err
	}
	settings := ChurnSettings{VIP: vip, Window: o.Window, Servers: len(r.servers.all), Flows: max(8*o.Flows, minTable), NextHop: NextHop()}
	for i := range r.balancers {
		b, err := o.New(settings)
		if err != nil {
			return r, err
		}
		r.balancers[i] = b
		if err := r.wire.put(i, b.Program()); err != nil {
			return r, err
		}
	}
	for i := range r.ways {
		r.ways[i] = byte(i % churnBalancers)
	}
	return r, nil
}

// minTable is a flow table for few flows, which leaves room for changes.
const minTable = 1 << 16

func (r *churnRun) close() error {
	var errs []error
	if r.wire != nil {
		errs = append(errs, r.wire.close())
	}
	for i := range r.balancers {
		errs = append(errs, r.end(i))
	}
	return errors.Join(errs...)
}

// run plays the scenario: all flows begin, then it acts, and then each flow goes on for longer than it
// may pause.
func (r *churnRun) run(ctx context.Context) error {
	if err := r.apply(ctx, r.servers.fleet()); err != nil {
		return err
	}
	r.judge.start = time.Now()
	g, groupCtx := errgroup.WithContext(ctx)
	played, done := context.WithCancel(groupCtx)
	g.Go(func() error {
		defer done()
		return r.play(groupCtx)
	})
	g.Go(func() error { return onThread(func() error { return r.traffic(played) }) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(r.end(0), r.end(1))
}

func (r *churnRun) play(ctx context.Context) error {
	if err := pause(ctx, r.o.opening()+handshake); err != nil {
		return err
	}
	if err := r.scenario.act(ctx, r); err != nil {
		return err
	}
	return pause(ctx, r.o.Window*11/10)
}

// handshake is by when a flow's second packet has been sent.
const handshake = 400 * time.Millisecond

// traffic sends packets until ctx ends.
func (r *churnRun) traffic(ctx context.Context) error {
	if err := netns.Set(r.wire.client.ns); err != nil { // the generator's devices are looked up here
		return fmt.Errorf("enter namespace: %v", err)
	}
	tick := time.NewTicker(churnTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := r.burst(); err != nil {
				return err
			}
		}
	}
}

// burst sends what is due and judges it.
func (r *churnRun) burst() error {
	r.road.Lock()
	defer r.road.Unlock()
	now := time.Since(r.judge.start)
	numbers := r.clients.due(now, churnOrders/2)
	if len(numbers) == 0 {
		return nil
	}
	orders := make([]order, 0, churnOrders)
	for _, n := range numbers {
		orders = append(orders, r.clients.order(n))
	}
	if r.flooding {
		for range numbers {
			orders = append(orders, r.floodOrder())
		}
	}
	for i := range orders {
		orders[i].balancer = r.ways[orders[i].path()]
	}
	to, err := r.wire.send(orders)
	if err != nil {
		return err
	}
	at := burst{sent: now, back: time.Since(r.judge.start)}
	r.servers.mu.Lock()
	defer r.servers.mu.Unlock()
	for i, n := range numbers {
		r.arrived(n, to[i], at)
	}
	r.judge.flood(to[len(numbers):], at)
	r.judge.tally.packets += uint64(len(numbers))
	return nil
}

// floodOrder is a SYN of a flood.
func (r *churnRun) floodOrder() order {
	o := order{flags: tcpSYN, port: uint16(r.floodRng.Uint32())}
	binary.BigEndian.PutUint32(o.source[:], 11<<24|r.floodRng.Uint32()>>8)
	return o
}

// arrived judges a flow's packet and has the flow go on.
func (r *churnRun) arrived(number uint32, to netip.Addr, at burst) {
	f := &r.clients.flows[number]
	cause, again := r.judge.packet(f, to, at)
	switch {
	case again:
		r.clients.at(number, at.sent)
	case cause != "":
		r.judge.broke(f, cause, at)
		r.clients.begin(number, at.sent+handshake)
	case f.state == flowEnds:
		r.clients.begin(number, at.sent+handshake)
	default:
		r.clients.goOn(number, at.sent)
	}
}

// What follows is for scenarios.

// pause returns after d, or with an error when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// change has f change the fleet on all balancers. They take it over one by one, while packets flow.
func (r *churnRun) change(ctx context.Context, f func(*servers)) error {
	return r.servers.change(func() { f(r.servers) }, func(fleet Fleet) error { return r.apply(ctx, fleet) })
}

func (r *churnRun) apply(ctx context.Context, fleet Fleet) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range r.balancers {
		if b != nil {
			g.Go(func() error { return b.Apply(ctx, fleet) })
		}
	}
	return g.Wait()
}

// flood begins or ends a flood of SYN, as many as the flows' own packets.
func (r *churnRun) flood(on bool) {
	r.road.Lock()
	defer r.road.Unlock()
	r.flooding = on
}

// move gives some paths to the other balancer, as a router does when it spreads anew.
func (r *churnRun) move(paths int) {
	r.road.Lock()
	defer r.road.Unlock()
	for range paths {
		r.ways[r.rng.IntN(churnPaths)] ^= 1
	}
}

// kill ends a balancer; its paths move to the other one. If that inherits, it is given history and
// flows before, and no packet is under way meanwhile.
func (r *churnRun) kill(ctx context.Context, number int, inherits bool) error {
	r.road.Lock()
	defer r.road.Unlock()
	r.servers.mu.Lock()
	r.judge.loss(r.clients.flows, time.Since(r.judge.start))
	r.servers.mu.Unlock()
	other := 1 - number
	if inherits {
		if err := r.balancers[number].HandOver(ctx, r.balancers[other]); err != nil {
			return fmt.Errorf("hand over: %w", err)
		}
	}
	for i := range r.ways {
		r.ways[i] = byte(other)
	}
	return errors.Join(r.wire.take(number), r.end(number))
}

// end closes a balancer that is not closed yet.
func (r *churnRun) end(number int) error {
	b := r.balancers[number]
	if b == nil {
		return nil
	}
	r.balancers[number] = nil
	refused, err := b.Close()
	r.refused += refused
	return err
}
