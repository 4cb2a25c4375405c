// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// As in bpf/churn.bpf.c.
const (
	churnOrders    = 1 << 16
	churnBalancers = 2
	churnWord      = 8 // bytes of an order, and of an arrival
)

// order is a packet to be sent.
type order struct {
	source [4]byte
	port   uint16
	flags  byte
	// balancer is the way that it takes.
	balancer byte
}

// wire is a client's network namespace with a veth pair to each of two balancers, which are together
// in another one: live frames go out, and the outer destination of each that comes back is noted. The
// namespaces have no names, so the kernel removes them with the process, however that ends. One
// goroutine uses it; close it.
type wire struct {
	client, balancers side
	pairs             [churnBalancers]struct{ client, balancer side }
	coll              *ebpf.Collection
	sinks             []link.Link
	balanced          [churnBalancers]link.Link
	orders, arrivals  *ebpf.Memory
	next              uint32
	buffer            []byte
}

// openWire makes it all; if it fails, it leaves nothing behind. The frames are for vip.
func openWire(vip lb.VIP) (_ *wire, err error) {
	w := &wire{buffer: make([]byte, churnOrders*churnWord)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make wire: %w", err), w.close())
		}
	}()
	if err := errors.Join(w.client.openUnnamed(), w.balancers.openUnnamed()); err != nil {
		return nil, err
	}
	for i := range w.pairs {
		p := &w.pairs[i]
		p.client, p.balancer = w.client, w.balancers
		if err := connectSides(&p.client, &p.balancer, fmt.Sprintf("client%d", i), fmt.Sprintf("balancer%d", i)); err != nil {
			return nil, err
		}
	}
	if err := w.load(vip); err != nil {
		return nil, err
	}
	for _, p := range w.pairs {
		attached, err := p.client.attach(w.coll.Programs["sink"])
		if err != nil {
			return nil, fmt.Errorf("attach sink: %w", err)
		}
		w.sinks = append(w.sinks, attached)
	}
	return w, nil
}

// openUnnamed makes a namespace that ends with its last user.
func (s *side) openUnnamed() error {
	return onThread(func() (err error) { // New moves the calling thread
		if s.ns, err = netns.New(); err != nil {
			return fmt.Errorf("make namespace: %v", err)
		}
		if s.handle, err = netlink.NewHandleAt(s.ns, unix.NETLINK_ROUTE); err != nil {
			return errors.Join(fmt.Errorf("open netlink in namespace: %v", err), s.ns.Close())
		}
		return nil
	})
}

func (s *side) closeUnnamed() error {
	if s.handle == nil {
		return nil
	}
	s.handle.Close()
	return s.ns.Close()
}

func (w *wire) load(vip lb.VIP) error {
	spec, err := loadChurn()
	if err != nil {
		return fmt.Errorf("load wire's programs: %w", err)
	}
	frame := etherFrame(etherIPv4, ipv4Packet(addresses().client4, vip.Addr, byte(lb.TCP), tcpSegment(0, vip.Port, 0, 10)))
	words := make([]uint64, len(frame)/8)
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(frame[8*i:])
	}
	out := [churnBalancers]uint32{uint32(w.pairs[0].client.index), uint32(w.pairs[1].client.index)}
	err = errors.Join(spec.Variables["frame_words"].Set(words), spec.Variables["out_ifindex"].Set(out))
	if err != nil {
		return fmt.Errorf("load wire's programs: %w", err)
	}
	if w.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load wire's programs: %w", err)
	}
	if w.orders, err = w.coll.Maps["orders"].Memory(); err != nil {
		return fmt.Errorf("map orders: %w", err)
	}
	if w.arrivals, err = w.coll.Maps["arrivals"].Memory(); err != nil {
		return fmt.Errorf("map arrivals: %w", err)
	}
	return nil
}

// put makes a program the balancer of that number.
func (w *wire) put(number int, program *ebpf.Program) (err error) {
	w.balanced[number], err = w.pairs[number].balancer.attach(program)
	if err != nil {
		return fmt.Errorf("attach balancer: %w", err)
	}
	return nil
}

// take removes a balancer: frames sent its way are lost.
func (w *wire) take(number int) error {
	if w.balanced[number] == nil {
		return nil
	}
	err := w.balanced[number].Close()
	w.balanced[number] = nil
	return err
}

// send sends at most churnOrders packets, and returns the outer destination of each, in the same
// order; it is invalid where the packet did not come back. The calling thread must be in the client's
// namespace. The kernel waits for a grace period before and after, some 10 ms each.
func (w *wire) send(orders []order) ([]netip.Addr, error) {
	first := w.next
	for i, o := range orders {
		raw := w.buffer[:churnWord]
		copy(raw, o.source[:])
		binary.BigEndian.PutUint16(raw[4:], o.port)
		raw[6], raw[7] = o.flags, o.balancer
		at := int64(first+uint32(i)) % churnOrders * churnWord
		if _, err := w.orders.WriteAt(raw, at); err != nil {
			return nil, fmt.Errorf("write order: %w", err)
		}
		// What came back long ago must not be taken for this one.
		binary.NativeEndian.PutUint64(raw, uint64(first+uint32(i)+1))
		if _, err := w.arrivals.WriteAt(raw, at); err != nil {
			return nil, fmt.Errorf("clear arrival: %w", err)
		}
	}
	w.next = first + uint32(len(orders))
	if err := w.coll.Variables["end_order"].Set(w.next); err != nil {
		return nil, fmt.Errorf("write end of orders: %w", err)
	}
	_, err := w.coll.Programs["generate"].Run(&ebpf.RunOptions{
		Data: make([]byte, 64), Repeat: uint32(len(orders)), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: vethBatch,
	})
	if err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	return w.arrived(first, len(orders))
}

// arrived reads where n packets went.
func (w *wire) arrived(first uint32, n int) ([]netip.Addr, error) {
	to := make([]netip.Addr, n)
	if _, err := w.arrivals.ReadAt(w.buffer, 0); err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	for i := range to {
		number := first + uint32(i)
		raw := w.buffer[number%churnOrders*churnWord:]
		if binary.NativeEndian.Uint32(raw) == number {
			to[i] = netip.AddrFrom4([4]byte(raw[4:8]))
		}
	}
	return to, nil
}

// close ends everything, balancers too.
func (w *wire) close() error {
	var errs []error
	for i := range w.balanced {
		errs = append(errs, w.take(i))
	}
	for _, l := range w.sinks {
		errs = append(errs, l.Close())
	}
	if w.coll != nil {
		w.coll.Close()
	}
	return errors.Join(append(errs, w.client.closeUnnamed(), w.balancers.closeUnnamed())...)
}
