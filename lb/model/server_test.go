// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// withServer has VIPs of both protocols with these options, whose slot is newReal's. The number leads to
// elsewhere.
func withServer(t testing.TB, options lb.Options, number uint32) *model.Tables {
	t.Helper()
	tables := oneSlot(t, lb.FlowTransitions, stable)
	for name, vip := range tables.VIPs {
		vip.Options, vip.Servers = options, map[uint32]lb.RealID{number: elsewhere}
		tables.VIPs[name] = vip
	}
	tables.QUICLB = lb.QUICLB{ConfigID: 2, ServerIDBytes: 3}
	return tables
}

// leads tells whether the frame goes to the server's real, and not to the slot's.
func leads(t *testing.T, tables *model.Tables, frame []byte) bool {
	t.Helper()
	res := process(t, tables, frame)
	if res.Reason != lb.ReasonForwarded || res.Real != elsewhere && res.Real != newReal {
		t.Fatalf("%s, real %d", res.Reason, res.Real)
	}
	return res.Real == elsewhere
}

type leadCase struct {
	name   string
	number uint32
	data   []byte
	want   bool
}

func runLeads(t *testing.T, options lb.Options, cases []leadCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := leads(t, withServer(t, options, c.number), datagramOf(string(c.data))); got != c.want {
				t.Errorf("payload %x leads to server %d: %t", c.data, c.number, got)
			}
		})
	}
}

func TestKatranConnectionIDs(t *testing.T) {
	long := func(first string, id string) []byte { return fromHex(t, first+"00000001"+id) }
	runLeads(t, lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, []leadCase{
		{"version 1, 1024", 1024, fromHex(t, "40 410000 0000000000"), true},
		{"version 1, 65535", 65535, fromHex(t, "40 7fffc0 0000000000"), true},
		{"version 1, bits without a meaning", 65535, fromHex(t, "40 7fffff ffffffffff"), true},
		{"version 2, 1024", 1024, fromHex(t, "40 80000400 00000000"), true},
		{"version 2, 197632", 197632, fromHex(t, "40 80030400 00000000"), true},
		{"version 2, bits without a meaning", 1024, fromHex(t, "40 bf000400 ffffffff"), true},
		{"version 3, 1024", 1024, fromHex(t, "40 c000000400 000000"), true},
		{"version 3, from 2^31 on", 1 << 31, fromHex(t, "40 c080000000 000000"), true},
		{"version 3, the greatest", 1<<32 - 1, fromHex(t, "40 c0ffffffff 000000"), true},
		{"version 0", 1024, fromHex(t, "40 00000400 00000000"), false},
		{"another number", 1024, fromHex(t, "40 80000401 00000000"), false},
		{"short header, 8 bytes", 1024, fromHex(t, "40 80000400 000000"), false},
		{"short header, 9 bytes", 1024, fromHex(t, "40 80000400 00000000"), true},
		{"nothing", 1024, nil, false},
		{"Handshake", 1024, long("e0", "08 80000400 00000000"), true},
		{"Retry", 1024, long("f0", "08 80000400 00000000"), true},
		{"Initial", 1024, long("c0", "08 80000400 00000000"), false},
		{"0-RTT", 1024, long("d0", "08 80000400 00000000"), false},
		{"an id of 7 bytes", 1024, long("e0", "07 80000400 00000000"), false},
		{"an id of 20 bytes", 1024, long("e0", "14 80000400 00000000"), true},
		{"long header, 13 bytes", 1024, long("e0", "08 80000400 000000"), false},
	})
}

// TestQUICLB has configuration id 2 and numbers of 3 bytes.
func TestQUICLB(t *testing.T) {
	runLeads(t, lb.Options{ConnectionIDs: lb.ConnectionIDsQUICLB}, []leadCase{
		{"short header", 0x010203, fromHex(t, "40 40 010203"), true},
		{"short header, one byte missing", 0x010203, fromHex(t, "40 40 0102"), false},
		{"length bits do not count", 0x010203, fromHex(t, "40 5f 010203"), true},
		{"another configuration", 0x010203, fromHex(t, "40 60 010203"), false},
		{"another number", 0x010203, fromHex(t, "40 40 010204"), false},
		{"number 0", 0, fromHex(t, "40 40 000000"), false},
		{"Handshake, the least", 0x010203, fromHex(t, "e0 00000001 08 47 010203"), true},
		{"Handshake, one byte missing", 0x010203, fromHex(t, "e0 00000001 08 47 0102"), false},
		{"Handshake, the id too short", 0x010203, fromHex(t, "e0 00000001 07 47 010203"), false},
		{"Initial", 0x010203, fromHex(t, "c0 00000001 08 47 010203"), false},
	})
	for n := range uint8(4) {
		form := lb.QUICLB{ConfigID: 6, ServerIDBytes: n + 1}
		tables := withServer(t, lb.Options{ConnectionIDs: lb.ConnectionIDsQUICLB}, 200)
		tables.QUICLB = form
		for _, b := range [][]byte{
			frames.QUICShort(frames.QUICLBID(form, 200, [4]byte{})), frames.QUICLong(frames.QUICHandshake, frames.QUICLBID(form, 200, [4]byte{})),
		} {
			if !leads(t, tables, datagramOf(string(b))) {
				t.Errorf("%+v: %x leads nowhere", form, b)
			}
		}
		tables.QUICLB = lb.QUICLB{}
		if leads(t, tables, datagramOf("\x40\x00\x00\x00\x00\xc8")) {
			t.Error("without a form, something is read")
		}
	}
}

func TestUDPIDs(t *testing.T) {
	runLeads(t, lb.Options{UDPIDs: true}, []leadCase{
		{"its number", 0x010203, fromHex(t, "52 010203 00000000"), true},
		{"7 bytes", 0x010203, fromHex(t, "52 010203 000000"), false},
		{"another first byte", 0x010203, fromHex(t, "53 010203 00000000"), false},
		{"another number", 0x010203, fromHex(t, "52 010204 00000000"), false},
		{"number 0", 0, fromHex(t, "52 000000 00000000"), false},
	})
}

// TestUDPIDCountsMore: of two ids that lead to a real it is the UDP id that counts, and one that leads
// nowhere leaves the other.
func TestUDPIDCountsMore(t *testing.T) {
	tables := withServer(t, lb.Options{ConnectionIDs: lb.ConnectionIDsKatran, UDPIDs: true}, 0)
	name := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.UDP}
	// 0x52 is a short header, too: the connection id of version 2 is 0x808182, the UDP id 0x808182 with
	// the version's byte in front.
	payload := fromHex(t, "52 808182 83 00000000")
	tables.VIPs[name].Servers[0x818283] = drainingReal
	if res := process(t, tables, datagramOf(string(payload))); res.Real != drainingReal {
		t.Errorf("by the connection id to real %d", res.Real)
	}
	tables.VIPs[name].Servers[0x808182] = oldReal
	if res := process(t, tables, datagramOf(string(payload))); res.Real != oldReal {
		t.Errorf("by both ids to real %d", res.Real)
	}
	tables.VIPs[name].Servers[0x808182] = retiredReal
	if res := process(t, tables, datagramOf(string(payload))); res.Real != drainingReal {
		t.Errorf("by the connection id and a UDP id that leads nowhere to real %d", res.Real)
	}
}

func TestTCPIDs(t *testing.T) {
	const number = 0x01020304
	id := frames.TCPID(number)
	nops := func(n int) []byte { return slices.Repeat([]byte{frames.TCPOptionNOP}, n) }
	mss := frames.TCPOption(2, 5, 0xb4)
	cases := []struct {
		name    string
		flags   uint8
		options []byte
		want    bool
	}{
		{"alone", frames.ACK, fromHex(t, "b706 04030201"), true},
		{"of a SYN", frames.SYN, id, false},
		{"of a FIN", frames.FIN | frames.ACK, id, true},
		{"behind another", frames.ACK, slices.Concat(mss, id), true},
		{"before another", frames.ACK, slices.Concat(id, mss), true},
		{"none", frames.ACK, mss, false},
		{"the 15th option", frames.ACK, slices.Concat(nops(14), id), true},
		{"the 16th option", frames.ACK, slices.Concat(nops(15), id), false},
		{"behind the end", frames.ACK, slices.Concat([]byte{0}, id), false},
		{"behind an option of length 1", frames.ACK, slices.Concat([]byte{8, 1}, id), false},
		{"behind an option of length 0", frames.ACK, slices.Concat([]byte{8, 0}, id), false},
		{"behind one that does not fit", frames.ACK, slices.Concat([]byte{8, 41}, id), false},
		{"of length 5", frames.ACK, fromHex(t, "b705 040302 01"), false},
		{"behind one of length 2", frames.ACK, slices.Concat(frames.TCPOption(0xb7), id), false},
		{"behind the server's own", frames.ACK, slices.Concat(frames.TCPOption(0xb6, 4, 3, 2, 1), id), true},
		{"the last of all bytes", frames.ACK, slices.Concat(frames.TCPOption(2, make([]byte, 30)...), nops(2), id), true},
		{"in the data", frames.ACK, nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := withServer(t, lb.Options{TCPIDs: true}, number)
			segment := frames.TCP{SrcPort: 50000, DstPort: 443, Flags: c.flags, Options: c.options, Data: id}
			if got := leads(t, tables, frame(packet(client4, vip4, segment)).Bytes()); got != c.want {
				t.Errorf("options %x: %t", c.options, got)
			}
		})
	}
}

// TestTCPIDInHeaderThatIsCut: options are read as far as the packet goes, if its header says that it is
// longer, and no trailer is.
func TestTCPIDInHeaderThatIsCut(t *testing.T) {
	const number = 0x01020304
	tables := withServer(t, lb.Options{TCPIDs: true}, number)
	for cut, want := range map[int]bool{0: true, 1: false, 5: false} {
		segment := frames.TCP{SrcPort: 50000, DstPort: 443, Flags: frames.ACK, Options: []byte{1, 1}, Data: frames.TCPID(number)}
		p := packet(client4, vip4, segment).(frames.IPv4)
		whole := p.Bytes()[20:]
		whole[12] = 15 << 4
		p.Payload = frames.Raw{Protocol: 6, Data: whole[:len(whole)-cut]}
		// The two options of one byte are filled up with ends, which must not end them here.
		copy(whole[20:], []byte{1, 1, 1, 1})
		f := frame(p)
		f.Trailer = whole[len(whole)-cut:]
		if got := leads(t, tables, f.Bytes()); got != want {
			t.Errorf("%d bytes cut off: %t", cut, got)
		}
	}
}

// TestPacketsThatAreNotLed: numbers count only where the option is on, the real may receive, and the
// packet is neither an ICMP error nor a fragment.
func TestPacketsThatAreNotLed(t *testing.T) {
	const number = 1024
	options := lb.Options{TCPIDs: true, UDPIDs: true, ConnectionIDs: lb.ConnectionIDsKatran}
	named := map[string][]byte{
		"TCP":  frame(packet(client4, vip4, frames.TCP{SrcPort: 50000, DstPort: 443, Options: frames.TCPID(number)})).Bytes(),
		"UDP":  datagramOf(string(frames.UDPID(number))),
		"QUIC": datagramOf(string(frames.QUICShort(frames.KatranID(2, number, [8]byte{})))),
	}
	for name, frame := range named {
		if !leads(t, withServer(t, options, number), frame) {
			t.Errorf("%s: not led", name)
		}
		if leads(t, withServer(t, lb.Options{}, number), frame) {
			t.Errorf("%s: led without the option", name)
		}
		for _, real := range []lb.RealID{retiredReal, withoutRecord} {
			tables := withServer(t, options, number)
			for _, vip := range tables.VIPs {
				vip.Servers[number] = real
			}
			if leads(t, tables, frame) {
				t.Errorf("%s: led to real %d", name, real)
			}
		}
	}
	tables := withServer(t, options, number)
	for _, frame := range [][]byte{tcpError, udpError} {
		if leads(t, tables, frame) {
			t.Error("an ICMP error is led")
		}
	}
}

// TestLedPacketsTeachTheFlowTable follows section 3.2 from one state to the other.
func TestLedPacketsTeachTheFlowTable(t *testing.T) {
	const number = 1024
	options := lb.Options{TCPIDs: true, UDPIDs: true, ConnectionIDs: lb.ConnectionIDsKatran}
	ofTCP := func(flags uint8) []byte {
		return frame(packet(client4, vip4, frames.TCP{SrcPort: 50000, DstPort: 443, Flags: flags, Options: frames.TCPID(number)})).Bytes()
	}
	tcpID, rstID := ofTCP(frames.ACK), ofTCP(frames.RST|frames.ACK)
	quicID := datagramOf(string(frames.QUICShort(frames.KatranID(2, number, [8]byte{}))))
	udpID := datagramOf(string(frames.UDPID(number)))
	cases := []struct {
		name   string
		mode   lb.FlowMode
		slot   lb.Slot
		has    model.Entry
		frame  []byte
		change model.Change
		seen   bool
		events []lb.FlowEvent
	}{
		{name: "TCP id, stable", slot: stable, frame: tcpID},
		{name: "TCP id, stable, always", mode: lb.FlowAlways, slot: stable, frame: tcpID, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "TCP id, moving", slot: moving, frame: tcpID, change: model.ChangeRemember, events: one(lb.FlowTakenOld)},
		{name: "TCP id, settling", slot: settling, frame: tcpID, change: model.ChangeRemember, events: one(lb.FlowTakenNew)},
		{name: "TCP id, lingering", slot: lingering, frame: tcpID},
		{name: "TCP id with RST, settling", slot: settling, frame: rstID},
		{name: "TCP id, known elsewhere", slot: moving, has: at(oldReal), frame: tcpID, change: model.ChangeRemember, seen: true,
			events: one(lb.FlowRepaired)},
		{name: "TCP id with RST, known elsewhere", slot: moving, has: at(oldReal), frame: rstID, change: model.ChangeRemember, seen: true,
			events: one(lb.FlowRepaired)},
		{name: "TCP id, another generation", slot: lingering, has: otherGeneration(elsewhere), frame: tcpID,
			change: model.ChangeRemember, seen: true, events: one(lb.FlowRepaired)},
		{name: "TCP id, known there", slot: moving, has: unseen(elsewhere), frame: tcpID, change: model.ChangeUse, seen: true},
		{name: "connection id, moving", slot: moving, frame: quicID},
		{name: "connection id, always", mode: lb.FlowAlways, slot: stable, frame: quicID},
		{name: "connection id, known elsewhere", slot: settling, has: at(oldReal), frame: quicID, change: model.ChangeRemember, seen: true,
			events: one(lb.FlowRepaired)},
		{name: "connection id, known there", slot: settling, has: unseen(elsewhere), frame: quicID, change: model.ChangeUse, seen: true},
		{name: "UDP id, known elsewhere", slot: settling, has: at(oldReal), frame: udpID},
		{name: "UDP id, always", mode: lb.FlowAlways, slot: stable, frame: udpID},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := withServer(t, options, number)
			for name, vip := range tables.VIPs {
				vip.Ring, vip.Flows = model.Ring{c.slot}, c.mode
				tables.VIPs[name] = vip
			}
			var flows model.Flows
			if c.has.Real != 0 {
				flows.Set(flowOf(protocolOf(c.frame)), c.has)
			}
			res := processWith(t, tables, &flows, c.frame)
			want := model.Entry{}
			if c.change != model.ChangeNone {
				want = model.Entry{Real: elsewhere, Generation: 10 * uint8(elsewhere), Seen: c.seen}
			}
			if res.Real != elsewhere || res.Flow.Change != c.change || res.Flow.Entry != want || !slices.Equal(res.Flow.Events, c.events) {
				t.Errorf("real %d, %s %+v %v, want %s %+v %v", res.Real, res.Flow.Change, res.Flow.Entry, res.Flow.Events, c.change, want, c.events)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		flows := model.Flows{Refuse: func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedRate, true }}
		tables := withServer(t, options, number)
		tables.VIPs[lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}].Ring[0] = settling
		res := processWith(t, tables, &flows, tcpID)
		if res.Real != elsewhere || res.Flow.Change != model.ChangeNone || !slices.Equal(res.Flow.Events, one(lb.FlowRefusedRate)) {
			t.Errorf("real %d, %s %v", res.Real, res.Flow.Change, res.Flow.Events)
		}
	})
}

// TestBuildersOfIDs compares with bytes written by hand.
func TestBuildersOfIDs(t *testing.T) {
	for i, c := range []struct {
		got  []byte
		want string
	}{
		{frames.KatranID(1, 1024, [8]byte{}), "4100000000000000"},
		{frames.KatranID(1, 65535, [8]byte{}), "7fffc00000000000"},
		{frames.KatranID(2, 197632, [8]byte{}), "8003040000000000"},
		{frames.KatranID(3, 1024, [8]byte{0xff, 6: 1}), "ff00000400000100"},
		{frames.QUICLBID(lb.QUICLB{ConfigID: 2, ServerIDBytes: 3}, 0x010203, [4]byte{9, 9, 9, 9}), "4701020309090909"},
		{frames.TCPID(0x01020304), "b70604030201"},
		{frames.UDPID(0x010203), "5201020300000000"},
	} {
		if want := fromHex(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%d: %x, want %x", i, c.got, want)
		}
	}
}
