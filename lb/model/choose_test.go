// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

func TestVIPs(t *testing.T) {
	tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	tables.VIPs[lb.VIP{Addr: addr(vip4), Protocol: lb.TCP}] = model.Ring{lb.StableSlot(2)}
	tables.VIPs[lb.VIP{Addr: addr(vip4), Protocol: lb.UDP, Port: 53}] = model.Ring{lb.StableSlot(3)}
	for id := range lb.RealID(3) {
		tables.Reals[id+1] = tables.Reals[1]
	}
	cases := []struct {
		name    string
		payload frames.Payload
		dst     string
		want    lb.Reason
		real    lb.RealID
	}{
		{"its port", frames.TCP{DstPort: 443}, vip4, lb.ReasonForwarded, 1},
		{"another port of a VIP of all ports", frames.TCP{DstPort: 444}, vip4, lb.ReasonForwarded, 2},
		{"port 0 of a VIP of all ports", frames.TCP{DstPort: 0}, vip4, lb.ReasonForwarded, 2},
		{"UDP", frames.UDP{DstPort: 53}, vip4, lb.ReasonForwarded, 3},
		{"another UDP port", frames.UDP{DstPort: 443}, vip4, lb.ReasonNotVIP, 0},
		{"port 0 without a VIP of all ports", frames.UDP{DstPort: 0}, vip4, lb.ReasonNotVIP, 0},
		{"the port as source", frames.UDP{SrcPort: 53, DstPort: 1}, vip4, lb.ReasonNotVIP, 0},
		{"another address", frames.TCP{DstPort: 443}, "203.0.113.11", lb.ReasonNotVIP, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := process(t, tables, frame(packet(client4, c.dst, c.payload)).Bytes())
			if res.Reason != c.want || res.Real != c.real {
				t.Errorf("%s, real %d, want %s, real %d", res.Reason, res.Real, c.want, c.real)
			}
		})
	}
}

// TestSlots gives each slot a real of its own, and compares with the slot that the hash names.
func TestSlots(t *testing.T) {
	for _, size := range []int{lb.DefaultRingSize, 4093, 1} {
		for _, src := range []string{client4, client6} {
			t.Run(fmt.Sprintf("%d slots, from %s", size, src), func(t *testing.T) {
				dst := addr(vip4)
				if src == client6 {
					dst = addr(vip6)
				}
				ring := make(model.Ring, size)
				for i := range ring { // the previous real and the state do not count
					ring[i] = lb.StableSlot(lb.RealID(i+1)) | lb.Slot(i%5)<<32 | lb.Slot(i%4)<<62
				}
				tables := &model.Tables{VIPs: map[lb.VIP]model.Ring{{Addr: dst, Port: 443, Protocol: lb.TCP}: ring}}
				for sport := range uint16(500) {
					want := maglev.SlotIndex(maglev.FlowHash(addr(src), sport, 443), uint32(size)) + 1
					b := frame(packet(src, dst.String(), frames.TCP{SrcPort: sport, DstPort: 443})).Bytes()
					if res := process(t, tables, b); res.Reason != lb.ReasonRealUnknown || res.Real != lb.RealID(want) {
						t.Fatalf("source port %d: %s, real %d, want %d", sport, res.Reason, res.Real, want)
					}
				}
			})
		}
	}
}

func TestRealsWanting(t *testing.T) {
	cases := []struct {
		name   string
		change func(tables *model.Tables, vip lb.VIP)
		want   lb.Reason
		real   lb.RealID
	}{
		{"nothing wanting", func(*model.Tables, lb.VIP) {}, lb.ReasonForwarded, 1},
		{"empty slot", func(tables *model.Tables, vip lb.VIP) { clear(tables.VIPs[vip]) }, lb.ReasonRingEmpty, 0},
		{"no slots", func(tables *model.Tables, vip lb.VIP) { tables.VIPs[vip] = nil }, lb.ReasonRingEmpty, 0},
		{"previous real only", func(tables *model.Tables, vip lb.VIP) {
			tables.VIPs[vip] = model.Ring{lb.Slot(1) << 32}
		}, lb.ReasonRingEmpty, 0},
		{"no record", func(tables *model.Tables, _ lb.VIP) { delete(tables.Reals, 1) }, lb.ReasonRealUnknown, 1},
		{"no MAC address", func(tables *model.Tables, _ lb.VIP) {
			real := tables.Reals[1]
			real.NextHop = lb.NextHop{MTU: 1500, Problem: "no route"}
			tables.Reals[1] = real
		}, lb.ReasonNextHopUnknown, 1},
		{"no MAC address, and too big", func(tables *model.Tables, _ lb.VIP) {
			real := tables.Reals[1]
			real.NextHop = lb.NextHop{Problem: "no route"}
			tables.Reals[1] = real
		}, lb.ReasonNextHopUnknown, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vip := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}
			tables := oneReal(t, vip.String(), tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
			c.change(tables, vip)
			if res := process(t, tables, frame(to(false, tcp)).Bytes()); res.Reason != c.want || res.Real != c.real {
				t.Errorf("%s, real %d, want %s, real %d", res.Reason, res.Real, c.want, c.real)
			}
		})
	}
}

// TestTooBig finds the boundary for every tunnel: it counts the IP packet, not frame and trailer.
func TestTooBig(t *testing.T) {
	for _, encap := range []lb.Encap{lb.IPIP, lb.GUE} {
		for _, real := range []string{"10.0.0.1", "fc00::1"} {
			for _, vip := range []string{vip4, vip6} {
				t.Run(fmt.Sprintf("%s from %s to %s", encap, vip, real), func(t *testing.T) {
					v := lb.VIP{Addr: addr(vip), Port: 443, Protocol: lb.TCP}
					tunnel := tunnelTo(t, encap, false, real)
					tables := oneReal(t, v.String(), tunnel)
					f := frame(to(v.Addr.Is6(), tcp))
					f.Trailer = make([]byte, 30)
					length := len(f.Packet.Bytes())
					outer := map[string]int{"ipip 4": 20, "ipip 6": 40, "gue 4": 28, "gue 6": 48}
					fits := length + outer[fmt.Sprintf("%s %d", encap, map[bool]int{false: 4, true: 6}[tunnel.Destination.Is6()])]
					for mtu, want := range map[int]lb.Reason{
						fits: lb.ReasonForwarded, fits + 1: lb.ReasonForwarded, fits - 1: lb.ReasonTooBig, 0: lb.ReasonTooBig,
					} {
						r := tables.Reals[1]
						r.NextHop.MTU = mtu
						tables.Reals[1] = r
						if res := process(t, tables, f.Bytes()); res.Reason != want || res.Real != 1 {
							t.Errorf("%d bytes, MTU %d: %s, want %s", length, mtu, res.Reason, want)
						}
					}
				})
			}
		}
	}
}

func TestTrace(t *testing.T) {
	tables := bothFamilies(t)
	var steps, texts []string
	tables.Trace = func(step, text string) {
		steps, texts = append(steps, step), append(texts, text)
	}
	process(t, tables, frame(to(false, tcp)).Bytes())
	if want := []string{"parse", "vip", "ring", "real", "encapsulate", "end"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	want := []string{
		"198.51.100.7:50000 to 203.0.113.10:443, tcp, 45 bytes",
		"203.0.113.10:0/tcp, a ring of 65537 slots",
	}
	if !slices.Equal(texts[:2], want) || texts[len(texts)-1] != "forwarded: tx" {
		t.Errorf("texts %q", texts)
	}
}
