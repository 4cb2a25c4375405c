// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

const (
	worldWindow = time.Minute
	worldDrain  = 150 * time.Second
	worldGrace  = 8 * time.Second
	worldSweep  = 5 * time.Second
	worldVIPs   = 3
)

// world is what is around engines: operators who change their inputs, and clients whose connections
// go through their data planes. It knows by its own account which real may get which packets.
type world struct {
	t   *testing.T
	rng *rand.Rand
	// inputs, by VIP: each is that of a service of its own.
	vips      []worldVIP
	drains    map[lb.Target]engine.Drain
	health    map[lb.Target]engine.Health
	all       []*balancer
	via       []int // those of all that clients' packets come to
	conns     []*conn
	next      uint64                  // tag
	known     map[lb.Target]bool      // reals that are configured, or were
	away      map[lb.Target]away      // those that get no new flows
	ended     map[lb.Target]ended     // absences that ended last
	retired   map[lb.Target]time.Time // when a real was last known to get no packets at all
	reset     map[lb.VIP]time.Time    // when a VIP was last changed in a way that moves its flows
	resetting map[lb.VIP]bool         // those of which that may not be written yet
	returns   map[lb.Target]time.Time // when those that flap are up again
	flows     int
	lost      int
	restarts  int
	sets      int // of the wall clock
	met       [lb.SlotStateLen]int
}

type worldVIP struct {
	lb.ServiceVIP
	gone     bool
	backends map[netip.Addr]lb.Backend
}

// away is until when a real may get packets of its flows: for sure, and at most.
type away struct{ sure, most time.Time }

// ended is an absence that ended at a time.
type ended struct {
	away
	at time.Time
}

// conn is a connection.
type conn struct {
	vip       int
	tag       uint64
	hash      uint32
	via       int // the balancer
	real      lb.Real
	led       bool // packets but the first say which server they are for
	began     time.Time
	next, end time.Time
}

// balancer is an engine with its data plane, and what it asked to be remembered.
type balancer struct {
	*fixture
	mu       sync.Mutex // guards memories
	memories []*engine.Memory
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)),
		drains: make(map[lb.Target]engine.Drain), health: make(map[lb.Target]engine.Health),
		known: make(map[lb.Target]bool), away: make(map[lb.Target]away), ended: make(map[lb.Target]ended), retired: make(map[lb.Target]time.Time),
		reset: make(map[lb.VIP]time.Time), resetting: make(map[lb.VIP]bool), returns: make(map[lb.Target]time.Time),
	}
	for i := range worldVIPs {
		v := worldVIP{backends: make(map[netip.Addr]lb.Backend)}
		v.VIP = lb.VIP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Port: 80, Protocol: lb.TCP}
		v.Ring = lb.Ring{Size: 53}
		v.Tunnel = lb.DefaultTunnelSources()
		v.Leave = lb.Leave{Drain: worldDrain, Grace: worldGrace}
		if i == 1 {
			v.Flows = lb.FlowAlways
		}
		v.Options.TCPIDs = i != 0
		for b := range 5 {
			v.backends[server(b)] = lb.Backend{Addr: server(b), Weight: 2, ServerID: serverID(server(b))}
		}
		w.vips = append(w.vips, v)
	}
	return w
}

// serverID is that of server i, i + 1.
func serverID(a netip.Addr) uint32 { return uint32(a.AsSlice()[3]) + 1 }

// start runs one more balancer. seed decides which of its verbs fail, one in ten; 0 none.
func (w *world) start(seed uint64) *balancer {
	b := &balancer{}
	dp := enginetest.NewDataplane(w.t, seed)
	if seed > 0 {
		dp.FailWith(enginetest.OneIn(10, seed))
	}
	w.run(b, dp, nil)
	w.via = append(w.via, len(w.all))
	w.all = append(w.all, b)
	return b
}

func (w *world) run(b *balancer, dp *enginetest.Dataplane, memory *engine.Memory) {
	b.fixture = newFixture(w.t, dp, func(c *engine.Config) {
		c.Adopted = dp.Adopted()
		c.Adopted.Memory = memory
		c.Sources = []string{"a"}
		c.Window, c.Quarantine, c.SweepInterval, c.RepairInterval = worldWindow, worldWindow, worldSweep, 20*time.Second
		c.OnMemory = b.remember
	})
	w.tell(b)
	b.fixture.run(w.t)
	synctest.Wait()
}

func (b *balancer) remember(m *engine.Memory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memories = append(b.memories, m)
}

// remembered is the last thing but so many that was to be remembered; nil if there is none.
func (b *balancer) remembered(but int) *engine.Memory {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := len(b.memories) - 1 - but; i >= 0 {
		return b.memories[i]
	}
	return nil
}

// tell hands over all inputs.
func (w *world) tell(b *balancer) {
	var services []lb.Service
	backends := make(map[string][]lb.Backend)
	for i, v := range w.vips {
		if v.gone {
			continue
		}
		name := fmt.Sprintf("s%d", i)
		services = append(services, lb.Service{Name: name, VIPs: []lb.ServiceVIP{v.ServiceVIP}})
		backends[name] = slices.Collect(maps.Values(v.backends))
	}
	b.SetDrains(w.drains)
	b.SetHealth(w.health)
	b.SetServicesAndBackends(services, "a", backends)
}

// change changes something, and keeps account of what follows from it.
func (w *world) change() {
	v := &w.vips[w.rng.IntN(len(w.vips))]
	addr := server(w.rng.IntN(7))
	target := lb.Target{VIP: v.VIP, Backend: addr}
	b, there := v.backends[addr]
	n := w.rng.IntN(40)
	w.say("change %d of %s: %+v, health %+v, drain %+v", n, target, b, w.health[target], w.drains[target])
	switch {
	case n < 8 && there:
		b.Weight = uint32(w.rng.IntN(4))
		v.backends[addr] = b
	case n < 12 && there:
		b.Down = !b.Down
		v.backends[addr] = b
	case n < 20 && there:
		delete(v.backends, addr)
	case n < 20:
		v.backends[addr] = lb.Backend{Addr: addr, Weight: 1 + uint32(w.rng.IntN(3)), ServerID: serverID(addr)}
	case n < 24:
		if _, drained := w.drains[target]; drained {
			delete(w.drains, target)
		} else {
			now := time.Now()
			w.drains[target] = engine.Drain{Since: now.Add(-time.Minute), Until: now.Add(time.Duration(w.rng.IntN(200)) * time.Second)}
		}
	case n < 28:
		w.health[target] = engine.Health{Percent: uint8(w.rng.IntN(101))}
	case n < 36:
		w.health[target] = engine.Health{Down: true}
		w.returns[target] = time.Now().Add(time.Duration(1+w.rng.IntN(20)) * time.Second)
	default:
		w.changeVIP(v, n)
	}
	w.tellAll()
}

// say notes what is done, for whoever looks into a failure.
func (w *world) say(format string, args ...any) {
	w.t.Logf("%s "+format, append([]any{time.Now().Format("04:05.000")}, args...)...)
}

// changeVIP is what moves flows.
func (w *world) changeVIP(v *worldVIP, kind int) {
	if w.rng.IntN(3) > 0 {
		return
	}
	switch kind {
	case 36:
		v.Ring.Size = []uint32{31, 53}[w.rng.IntN(2)]
	case 37:
		v.Ring.Hash = 1 - v.Ring.Hash
	case 38:
		v.Flows = []lb.FlowMode{lb.FlowTransitions, lb.FlowAlways, lb.FlowNever}[w.rng.IntN(3)]
	case 39:
		v.gone = !v.gone
	}
	w.resetting[v.VIP] = true
}

func (w *world) tellAll() {
	for _, b := range w.all {
		w.tell(b)
	}
	synctest.Wait()
	w.account(knowsAll)
}

// knowledge is what engines know of absences.
type knowledge int

const (
	knowsAll knowledge = iota
	lostMemory
	oldMemory
)

// account says which reals are away, and for how long. If the engines' memory is lost, they may be
// so for longer, or if it is old, for less long.
func (w *world) account(k knowledge) {
	for _, v := range w.vips {
		for i := range 8 {
			target := lb.Target{VIP: v.VIP, Backend: server(i)}
			b, there := v.backends[target.Backend]
			until, leaves := w.leaves(target, b, there)
			if v.gone || !leaves {
				if a, was := w.away[target]; was {
					w.ended[target] = ended{a, time.Now()}
				}
				delete(w.away, target)
			} else {
				w.leave(target, until, k)
			}
			w.known[target] = !v.gone && (there || leaves)
		}
	}
}

// leaves tells whether a real gets no new flows, and by when it has lost its old ones if that begins
// now.
func (w *world) leaves(target lb.Target, b lb.Backend, there bool) (time.Time, bool) {
	drain, drained := w.drains[target]
	switch now := time.Now(); {
	case !there:
		return now.Add(worldDrain), w.known[target]
	case b.Down || w.health[target].Down:
		return now.Add(worldGrace), true
	case drained:
		delete(w.away, target)
		return drain.Until, true
	case b.Weight == 0:
		return now.Add(worldDrain), true
	}
	return time.Time{}, false
}

func (w *world) leave(target lb.Target, until time.Time, k knowledge) {
	next := away{until, until}
	if old, was := w.away[target]; was {
		if old.sure.Before(until) {
			next.sure = old.sure
		}
		if old.most.Before(until) && k == knowsAll {
			next.most = old.most
		}
	}
	if k == oldMemory {
		next.sure = time.Now()
	}
	// After a crash the memory may be of the time before the last passes, which failed: then an absence that
	// ended and began again meanwhile goes on.
	if last := w.ended[target]; k == lostMemory && time.Since(last.at) < 10*time.Second && last.sure.Before(next.sure) {
		next.sure = last.sure
	}
	w.away[target] = next
}

// restart ends a balancer's engine, at a moment of its own or at its next verb, and starts it again
// after a time.
func (w *world) restart(b *balancer) {
	w.restarts++
	memory, k := b.remembered(0), knowsAll
	if w.rng.IntN(2) == 0 {
		b.stop()
	} else {
		w.crash(b)
		memory, k = b.remembered(0), lostMemory // that of the last change
	}
	time.Sleep(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
	switch w.rng.IntN(4) {
	case 0:
		memory, k = nil, lostMemory
	case 1:
		memory, k = b.remembered(1), oldMemory
	}
	if memory != nil {
		memory, k = w.saved(memory, k)
	}
	w.say("restart with memory: %d", k)
	w.run(b, b.dp, memory)
	for !b.inSync() { // absences begin with the first pass, which a verb may have failed
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	w.account(k)
}

// saved is the memory as it comes back from a file, often after the wall clock was set: what is in the
// file is then of the future, and absences begin anew; or it is older than the window, and they are over.
// (A clock that is set forward by less shortens the window by that, which no engine can know.)
func (w *world) saved(m *engine.Memory, k knowledge) (*engine.Memory, knowledge) {
	text, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	var again engine.Memory
	if err := json.Unmarshal(text, &again); err != nil {
		w.t.Fatal(err)
	}
	set := time.Duration(0)
	switch w.rng.IntN(4) {
	case 0:
		set, k = -time.Duration(w.rng.IntN(3600))*time.Second, max(k, lostMemory)
	case 1:
		set, k = worldWindow+time.Duration(w.rng.IntN(3600))*time.Second, oldMemory
	}
	w.say("the clock is set by %v", set)
	if set != 0 {
		w.sets++
	}
	for i := range again.VIPs {
		v := &again.VIPs[i]
		for n := range v.Sets {
			v.Sets[n].Since = v.Sets[n].Since.Add(-set)
		}
		for n := range v.Absent {
			v.Absent[n].Since, v.Absent[n].Until = v.Absent[n].Since.Add(-set), v.Absent[n].Until.Add(-set)
		}
		if !v.Renumbered.IsZero() {
			v.Renumbered = v.Renumbered.Add(-set)
		}
	}
	return &again, k
}

// crash has a verb fail that the engine does not live to see.
func (w *world) crash(b *balancer) {
	ends := 1 + w.rng.IntN(3)
	b.dp.FailWith(func(string) error {
		if ends--; ends <= 0 {
			b.cancel()
			return errors.New("crash")
		}
		return nil
	})
	w.change()
	b.stop()
	b.dp.FailWith(enginetest.OneIn(10, w.rng.Uint64()))
}

// step is a second.
func (w *world) step(changes, restarts float64) {
	w.notice()
	if w.rng.Float64() < changes {
		w.change()
	}
	now := time.Now()
	for target, at := range w.returns {
		if !now.Before(at) {
			delete(w.returns, target)
			delete(w.health, target)
			w.say("%s is up again", target)
			w.tellAll()
		}
	}
	for _, b := range w.all {
		if w.rng.Float64() < restarts {
			w.restart(b)
		}
	}
	w.notice()
	w.send()
	time.Sleep(time.Second)
	synctest.Wait()
}

// inSync tells whether the balancer's data plane is as its inputs say.
func (b *balancer) inSync() bool { return b.Status().LastError == "" }

// notice keeps account of reals that lost their flows, and of VIPs that did and are not written yet.
func (w *world) notice() {
	now := time.Now()
	for target, a := range w.away {
		if !now.Before(a.sure) {
			w.retired[target] = now
		}
	}
	for vip := range w.resetting {
		w.reset[vip] = now
	}
	if !slices.ContainsFunc(w.all, func(b *balancer) bool { return !b.inSync() }) {
		clear(w.resetting)
	}
}

// send sends the packets that are due.
func (w *world) send() {
	for range 4 {
		w.open()
	}
	w.conns = slices.DeleteFunc(w.conns, w.proceed)
}

func (w *world) open() {
	w.next++
	now := time.Now()
	c := &conn{
		vip: w.rng.IntN(len(w.vips)), tag: w.next, hash: w.rng.Uint32(), via: w.via[w.rng.IntN(len(w.via))],
		led: w.next%3 == 0, began: now, next: now.Add(w.pause()), end: now.Add(time.Duration(w.rng.IntN(300)) * time.Second),
	}
	var ok bool
	if c.real, ok = w.packet(c, true); ok {
		w.conns = append(w.conns, c)
		w.flows++
	}
}

// pause is shorter than the window.
func (w *world) pause() time.Duration {
	return time.Duration(1+w.rng.IntN(int(worldWindow/time.Second)-1)) * time.Second
}

func (w *world) packet(c *conn, begins bool) (lb.Real, bool) {
	v := w.vips[c.vip].VIP
	b := w.all[c.via]
	if slots := b.dp.Slots(v); slots != nil {
		w.met[slots[uint64(c.hash)*uint64(len(slots))>>32].State()]++
	}
	p := enginetest.Packet{VIP: v, Tag: c.tag, Hash: c.hash, Begins: begins}
	if c.led && !begins {
		p.ServerID = serverID(c.real.Backend.Addr)
	}
	r, ok := b.dp.Send(p)
	if ok {
		w.checkReceiver(b, v, r)
	}
	return r, ok
}

// checkReceiver is the first promise: no packet goes to a real that is not configured or draining.
func (w *world) checkReceiver(b *balancer, v lb.VIP, r lb.Real) {
	if r.VIP != v {
		w.t.Errorf("a packet of VIP %s goes to a real of %s", v, r.VIP)
	}
	if !b.inSync() {
		return // what is configured is not written yet
	}
	target := lb.Target{VIP: v, Backend: r.Backend.Addr}
	if a, isAway := w.away[target]; !w.known[target] || isAway && !time.Now().Before(a.most) {
		w.t.Errorf("%v: a packet goes to %s, which may get none (%+v)", time.Now(), target, a)
	}
}

// proceed sends the connection's next packet, if it is due, and tells whether it is over. That is the
// second promise: it goes where the first one went, while that real may receive.
func (w *world) proceed(c *conn) bool {
	now := time.Now()
	if now.Before(c.next) {
		return false
	}
	v := w.vips[c.vip]
	target := lb.Target{VIP: v.VIP, Backend: c.real.Backend.Addr}
	r, ok := w.packet(c, false)
	if !ok || r.Backend.Addr != c.real.Backend.Addr {
		w.lost++
		followed := v.Flows != lb.FlowNever || c.led && v.Options.TCPIDs
		if w.retired[target].Before(c.began) && w.reset[v.VIP].Before(c.began) && followed && !v.gone {
			w.t.Errorf("%s: flow %x of %s went to real %d, %s, and goes to %d, %s", now.Format("04:05.000"), c.tag,
				c.began.Format("04:05.000"), c.real.ID, target, r.ID, r.Backend.Addr)
		}
		return true
	}
	c.next = now.Add(w.pause())
	return now.After(c.end)
}

// end has nothing change any more until all is stable, and compares with a fresh start.
func (w *world) end() {
	for _, b := range w.all {
		b.dp.FailWith(nil)
	}
	clear(w.returns)
	w.conns = slices.DeleteFunc(w.conns, func(c *conn) bool { return w.vips[c.vip].Flows == lb.FlowAlways })
	for len(w.conns) > 0 {
		w.notice()
		w.conns = slices.DeleteFunc(w.conns, w.proceed)
		time.Sleep(time.Second)
		synctest.Wait()
	}
	time.Sleep(worldDrain + worldWindow + 3*worldSweep)
	synctest.Wait()
	fresh := &balancer{}
	w.run(fresh, enginetest.NewDataplane(w.t, 0), nil)
	time.Sleep(worldDrain + worldWindow + 3*worldSweep)
	synctest.Wait()
	for _, b := range w.all {
		w.checkEnd(b, fresh)
	}
}

func (w *world) checkEnd(b, fresh *balancer) {
	if s := b.Status(); s.LastError != "" || !s.Settled {
		w.t.Errorf("status: error %q, settled %v", s.LastError, s.Settled)
	}
	if diff := cmp.Diff(fresh.dp.Content(), b.dp.Content()); diff != "" {
		w.t.Errorf("after the history (-fresh start, +got):\n%s", diff)
	}
	always := make(map[lb.RealID]bool)
	for _, s := range b.Status().Services {
		for _, v := range s.VIPs {
			if v.States[lb.SlotStable] != int(v.Ring.Size) {
				w.t.Errorf("VIP %s has slots that are not stable: %v", v.VIP, v.States)
			}
			for _, r := range v.Reals {
				always[r.ID] = v.Flows == lb.FlowAlways
			}
		}
	}
	for _, f := range b.dp.Flows() {
		if !always[f.Real] {
			w.t.Errorf("flow is remembered still: %+v", f)
		}
	}
}

// TestNoFlowIsMoved plays random histories under traffic, with one verb in ten failing, and restarts
// and crashes with the memory of before, with older memory, with memory that was written before the wall
// clock was set, and without: no packet goes to a real that
// may not get it, no flow to another real than its first while that may receive, and when all is over
// nothing is left of it.
func TestNoFlowIsMoved(t *testing.T) {
	var flows, lost, restarts, sets int
	var met [lb.SlotStateLen]int
	for seed := range uint64(25) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				w.start(seed + 1)
				w.account(knowsAll)
				for range 500 {
					w.step(0.1, 0.015)
				}
				w.end()
				flows, lost, restarts, sets = flows+w.flows, lost+w.lost, restarts+w.restarts, sets+w.sets
				for state, n := range w.met {
					met[state] += n
				}
			})
		})
	}
	t.Logf("flows %d, lost with their real %d, restarts %d, clock set %d times, packets by state of their slot %v", flows, lost, restarts, sets, met)
	if lost == 0 || lost > flows/2 || sets == 0 || slices.Contains(met[:], 0) {
		t.Error("the histories prove nothing")
	}
}
