// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// newWire is open until the end of the test.
func newWire(t *testing.T) *wire {
	t.Helper()
	require.Root(t)
	w, err := openWire(lb.VIP{Addr: addresses().vip4, Port: 80, Protocol: lb.TCP})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// sendOn sends from within the client's namespace.
func sendOn(t *testing.T, w *wire, orders []order) (to []netip.Addr) {
	t.Helper()
	err := onThread(func() (err error) {
		if err := netns.Set(w.client.ns); err != nil {
			return err
		}
		to, err = w.send(orders)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func manyOrders(n int) []order {
	orders := make([]order, n)
	for i := range orders {
		binary.BigEndian.PutUint32(orders[i].source[:], 10<<24|uint32(i))
		orders[i].port, orders[i].flags, orders[i].balancer = 2000, tcpACK, byte(i%2)
	}
	return orders
}

// Each packet goes the way of its order, and where it went is told for each, also when numbers come
// round.
func TestWire(t *testing.T) {
	w := newWire(t)
	encap, _ := loadTarget(t, floor(t, "encap_const"))
	drop, _ := loadTarget(t, floor(t, "drop"))
	for i, p := range []struct {
		name     string
		programs [2]bool // encapsulate, rather than drop
	}{
		{"both forward", [2]bool{true, true}},
		{"the second drops", [2]bool{true, false}},
		{"the first drops", [2]bool{false, true}},
		{"both forward again", [2]bool{true, true}},
	} {
		for number, forwards := range p.programs {
			program := drop
			if forwards {
				program = encap
			}
			if err := w.take(number); err != nil {
				t.Fatal(err)
			}
			if err := w.put(number, program); err != nil {
				t.Fatal(err)
			}
		}
		orders := manyOrders(churnOrders/3 + i)
		for at, addr := range sendOn(t, w, orders) {
			if want := p.programs[orders[at].balancer]; addr.IsValid() != want {
				t.Fatalf("%s: packet %d came back: %v", p.name, at, addr.IsValid())
			}
			if addr.IsValid() && addr != backend4(1) {
				t.Fatalf("%s: packet %d went to %s", p.name, at, addr)
			}
		}
	}
}

func TestWireWithoutBalancer(t *testing.T) {
	w := newWire(t)
	for i, addr := range sendOn(t, w, manyOrders(100)) {
		if addr.IsValid() {
			t.Fatalf("packet %d went to %s", i, addr)
		}
	}
}

// The constants of both languages agree.
func TestWireConstants(t *testing.T) {
	spec, err := loadChurn()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"orders", "arrivals"} {
		if m := spec.Maps[name]; m.MaxEntries != churnOrders || m.ValueSize != churnWord {
			t.Errorf("%s has %d entries of %d bytes", name, m.MaxEntries, m.ValueSize)
		}
	}
	if got := spec.Variables["out_ifindex"].Size(); got != 4*churnBalancers {
		t.Errorf("ways have %d bytes, want %d", got, 4*churnBalancers)
	}
}

// openFiles counts those of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
