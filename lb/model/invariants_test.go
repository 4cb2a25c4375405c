// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// checkResult says how a result contradicts its frame, or itself. It reads frames by its own
// arithmetic and not by the model's.
func checkResult(tables *model.Tables, in []byte, res model.Result) error {
	switch {
	case res.Reason >= lb.ReasonLen || res.Reason == lb.ReasonNoRoom:
		return fmt.Errorf("reason %s (%d)", res.Reason, res.Reason)
	case res.Verdict != res.Reason.Verdict():
		return fmt.Errorf("verdict %s for %s", res.Verdict, res.Reason)
	case res.Reason != lb.ReasonForwarded && res.Reason != lb.ReasonLocal && res.Bytes != 0:
		return fmt.Errorf("%s, and %d bytes are counted", res.Reason, res.Bytes)
	case res.Reason != lb.ReasonForwarded && res.Reason != lb.ReasonTooBigTold && len(res.Frame) > len(in):
		return fmt.Errorf("%s, and the frame grew", res.Reason)
	}
	if res.Decapsulated != 0 {
		in = inside(tables, in)
	}
	if res.Verdict != lb.TX && !bytes.Equal(res.Frame, in) {
		return fmt.Errorf("%s, and the frame is changed", res.Reason)
	}
	switch res.Reason {
	case lb.ReasonTooBigTold:
		return checkTooBigTold(in, res.Frame)
	case lb.ReasonForwarded:
		return checkForwarded(tables.Reals[res.Real], in, res)
	case lb.ReasonEchoAnswered:
		return checkEcho(in, res.Frame)
	case lb.ReasonRealUnknown:
		if _, ok := tables.Reals[res.Real]; ok {
			return fmt.Errorf("real %d is known", res.Real)
		}
	}
	return nil
}

// inside is a frame that is decapsulated, without its outer headers, as a host that takes all of them
// gets it.
func inside(tables *model.Tables, in []byte) []byte {
	host := *tables
	host.Decap, host.Trace = lb.Decap{GUEPort: tables.Decap.GUEPort, Others: lb.DecapHost}, nil
	return host.Process(in, nil).Frame
}

// checkTooBigTold verifies both checksums, the addresses and the quote.
func checkTooBigTold(in, out []byte) error {
	at := ipAt(in)
	if !bytes.Equal(out[:at], slices.Concat(in[6:12], in[0:6], in[12:at])) {
		return fmt.Errorf("Ethernet header %x", out[:at])
	}
	src, dst := ipAddrs(in[at:])
	from, to := ipAddrs(out[at:])
	if from != dst || to != src || len(ipPacket(out[at:])) != len(out)-at {
		return fmt.Errorf("answer from %s to %s, %d bytes", from, to, len(out))
	}
	headerLen, sum := 20, frames.Checksum(out[at:at+20])|frames.Checksum(out[at+20:])
	if src.Is6() {
		headerLen, sum = 40, frames.TransportChecksum(from, to, 58, out[at+40:])
	}
	quote := out[at+headerLen+8:]
	if sum != 0 || !bytes.Equal(quote, in[at:at+len(quote)]) {
		return fmt.Errorf("checksums are off by %#x, or the quote is wrong: %x", sum, quote)
	}
	return nil
}

// ipAt is where the IP packet of a sound frame begins: behind at most two tags.
func ipAt(frame []byte) int {
	at := 14
	for range 2 {
		if e := binary.BigEndian.Uint16(frame[at-2:]); e == frames.EtherTypeTag || e == frames.EtherTypeSTag {
			at += 4
		}
	}
	return at
}

// ipPacket is the IP packet at the start of b, by the length that it gives itself.
func ipPacket(b []byte) []byte {
	if b[0]>>4 == 4 {
		return b[:binary.BigEndian.Uint16(b[2:])]
	}
	return b[:40+int(binary.BigEndian.Uint16(b[4:]))]
}

func ipAddrs(packet []byte) (src, dst netip.Addr) {
	from, size := 12, 4
	if packet[0]>>4 == 6 {
		from, size = 8, 16
	}
	src, _ = netip.AddrFromSlice(packet[from : from+size])
	dst, _ = netip.AddrFromSlice(packet[from+size : from+2*size])
	return src, dst
}

func ipClass(packet []byte) byte {
	if packet[0]>>4 == 4 {
		return packet[1]
	}
	return byte(binary.BigEndian.Uint16(packet) >> 4)
}

// checkForwarded takes the outer headers off again.
func checkForwarded(real lb.Real, in []byte, res model.Result) error {
	at, out, tunnel := ipAt(in), res.Frame, real.Tunnel
	if len(out) != len(in)+tunnel.OuterLen() {
		return fmt.Errorf("%d bytes became %d by a tunnel of %d", len(in), len(out), tunnel.OuterLen())
	}
	outerType := uint16(frames.EtherTypeIPv4)
	if tunnel.Destination.Is6() {
		outerType = frames.EtherTypeIPv6
	}
	ethernet := slices.Concat(real.NextHop.MAC[:], in[0:6], in[12:at-2], []byte{byte(outerType >> 8), byte(outerType)})
	if !bytes.Equal(out[:at], ethernet) {
		return fmt.Errorf("Ethernet header %x, want %x", out[:at], ethernet)
	}
	if !bytes.Equal(out[at+tunnel.OuterLen():], in[at:]) {
		return errors.New("the inner packet or the trailer is changed")
	}
	inner, outer := ipPacket(in[at:]), ipPacket(out[at:])
	if res.Bytes != len(inner) || len(outer) != len(inner)+tunnel.OuterLen() || len(outer) > real.NextHop.MTU {
		return fmt.Errorf("%d bytes inside, %d outside, MTU %d, %d counted", len(inner), len(outer), real.NextHop.MTU, res.Bytes)
	}
	if err := checkOuterIP(tunnel, inner, outer); err != nil {
		return err
	}
	if tunnel.Encap == lb.GUE {
		return checkGUE(tunnel, inner, outer)
	}
	return nil
}

func checkOuterIP(tunnel lb.Tunnel, inner, outer []byte) error {
	src, dst := ipAddrs(outer)
	if dst != tunnel.Destination || !tunnel.Source.Contains(src) {
		return fmt.Errorf("outer packet from %s to %s, want %s and %s", src, dst, tunnel.Source, tunnel.Destination)
	}
	if ipClass(outer) != ipClass(inner) {
		return fmt.Errorf("traffic class %#x outside, %#x inside", ipClass(outer), ipClass(inner))
	}
	protocol := map[byte]byte{4: 4, 6: 41}[inner[0]>>4]
	if tunnel.Encap == lb.GUE {
		protocol = 17
	}
	if tunnel.Destination.Is6() {
		if outer[0]>>4 != 6 || outer[1]&0x0f != 0 || outer[2] != 0 || outer[3] != 0 || outer[6] != protocol || outer[7] != 64 {
			return fmt.Errorf("outer header %x", outer[:40])
		}
		return nil
	}
	if outer[0] != 0x45 || !bytes.Equal(outer[4:10], []byte{0, 0, 0, 0, 64, protocol}) || frames.Checksum(outer[:20]) != 0 {
		return fmt.Errorf("outer header %x", outer[:20])
	}
	return nil
}

// checkGUE verifies a computed checksum by reading the whole packet, where the inner checksum is
// right.
func checkGUE(tunnel lb.Tunnel, inner, outer []byte) error {
	src, dst := ipAddrs(outer)
	udp := outer[len(outer)-len(inner)-8:]
	if port := binary.BigEndian.Uint16(udp[2:]); port != tunnel.Port || int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
		return fmt.Errorf("UDP header %x", udp[:8])
	}
	state := innerChecksum(inner)
	checksum := binary.BigEndian.Uint16(udp[6:])
	switch {
	case (!tunnel.Checksum || state == checksumAbsent) && checksum != 0:
		return fmt.Errorf("UDP checksum %#x, want none", checksum)
	case tunnel.Checksum && state == checksumRight && frames.TransportChecksum(src, dst, 17, udp) != 0:
		return fmt.Errorf("UDP checksum %#x does not verify", checksum)
	}
	return nil
}

const (
	checksumAbsent = iota // none, or not to be relied on
	checksumRight
	checksumWrong
)

// innerChecksum judges the transport or ICMP checksum of a forwarded packet.
func innerChecksum(packet []byte) int {
	src, dst := ipAddrs(packet)
	protocol, headerLen := packet[6], 40
	if packet[0]>>4 == 4 {
		protocol, headerLen = packet[9], int(packet[0]&0x0f)*4
	}
	segment := packet[headerLen:]
	var wrong bool
	switch {
	case packet[0]>>4 == 4 && binary.BigEndian.Uint16(packet[6:])&0x3fff != 0:
		return checksumAbsent // of a fragment
	case packet[0]>>4 == 4 && headerLen > 20:
		return checksumAbsent // behind options
	case protocol == 17 && segment[6] == 0 && segment[7] == 0:
		return checksumAbsent
	case protocol == 6, protocol == 17, protocol == 58:
		wrong = frames.TransportChecksum(src, dst, protocol, segment) != 0
	case protocol == 1:
		wrong = frames.Checksum(segment) != 0
	default:
		return checksumAbsent // behind an extension header
	}
	if wrong {
		return checksumWrong
	}
	return checksumRight
}

// checkEcho undoes the answer, but for TTL and checksums, and compares the sums of all bytes.
func checkEcho(in, out []byte) error {
	if len(in) != len(out) {
		return fmt.Errorf("%d bytes became %d", len(in), len(out))
	}
	at := ipAt(in)
	want := slices.Concat(in[6:12], in[0:6], in[12:])
	request, answer := ipPacket(want[at:]), ipPacket(out[at:])
	src, dst := ipAddrs(request)
	addrs := slices.Concat(dst.AsSlice(), src.AsSlice())
	var message, got []byte
	if src.Is4() {
		request[8] = 64
		copy(request[12:], addrs)
		message, got = request[20:], answer[20:]
		message[0] = 0
		if frames.Checksum(answer[:20]) != 0 {
			return fmt.Errorf("IPv4 header checksum is wrong: %x", answer[:20])
		}
		copy(request[10:12], answer[10:12])
	} else {
		request[7] = 64
		copy(request[8:], addrs)
		message, got = request[40:], answer[40:]
		message[0] = 129
	}
	// What the checksum leaves over is the same before and after: nothing, if it is right.
	before, after := slices.Clone(in[at+len(request)-len(message):at+len(request)]), got
	if frames.Checksum(before)%0xffff != frames.Checksum(after)%0xffff {
		return fmt.Errorf("ICMP checksum: request %x, answer %x", before, after)
	}
	copy(message[2:4], got[2:4])
	if !bytes.Equal(out, want) {
		return fmt.Errorf("answer %x, want %x", out, want)
	}
	return nil
}

// process runs the frame with no flow remembered, checks the result and that the frame itself is left
// alone.
func process(tb testing.TB, tables *model.Tables, frame []byte) model.Result {
	tb.Helper()
	return processWith(tb, tables, nil, frame)
}

// processWith does so with a flow table.
func processWith(tb testing.TB, tables *model.Tables, flows *model.Flows, frame []byte) model.Result {
	tb.Helper()
	before := slices.Clone(frame)
	res := tables.Process(frame, flows)
	if !bytes.Equal(frame, before) {
		tb.Fatalf("the frame that was handed over is changed\nframe %x", before)
	}
	if err := checkResult(tables, frame, res); err != nil {
		tb.Fatalf("%s: %v\nframe %x", res.Reason, err, frame)
	}
	return res
}

func TestGeneratedFrames(t *testing.T) {
	const seed = 20
	t.Logf("seed %d", seed)
	tables := frames.Tables(seed)
	g := frames.NewGenerator(rand.New(rand.NewPCG(seed, 0)), frames.Targets(tables)...)
	computed := map[byte]int{} // by the protocol behind the IP header
	for range 50_000 {
		frame := g.Next().Bytes
		res := process(t, tables, frame)
		tunnel := tables.Reals[res.Real].Tunnel
		if res.Reason != lb.ReasonForwarded || !tunnel.Checksum {
			continue
		}
		if packet := ipPacket(frame[ipAt(frame):]); innerChecksum(packet) == checksumRight {
			protocol := packet[6]
			if packet[0]>>4 == 4 {
				protocol = packet[9]
			}
			computed[protocol]++
		}
	}
	for protocol, least := range map[byte]int{6: 500, 17: 500, 1: 100, 58: 100} {
		if n := computed[protocol]; n < least {
			t.Errorf("only %d computed checksums of protocol %d were verified", n, protocol)
		}
	}
}

// TestGeneratedFramesOfWorlds holds frames of worlds against the invariants.
func TestGeneratedFramesOfWorlds(t *testing.T) {
	var reasons [lb.ReasonLen]int
	for _, seed := range []uint64{21, 22, 23, 24} {
		t.Logf("seed %d", seed)
		world := frames.World(seed)
		g := frames.NewWorldGenerator(rand.New(rand.NewPCG(seed, 0)), world)
		for range 15_000 {
			reasons[process(t, world, g.Next().Bytes).Reason]++
		}
	}
	for _, r := range []lb.Reason{
		lb.ReasonTooBigTold, lb.ReasonDecapSent, lb.ReasonDecapsulated, lb.ReasonTTLExpired, lb.ReasonLocal, lb.ReasonFragmentPassed,
	} {
		if reasons[r] < 100 {
			t.Errorf("only %d frames end as %s", reasons[r], r)
		}
	}
}

// FuzzWorld does so with all options. The first byte chooses one of four worlds.
func FuzzWorld(f *testing.F) {
	var worlds []*model.Tables
	for seed := range uint64(4) {
		world := frames.World(seed)
		worlds = append(worlds, world)
		g := frames.NewWorldGenerator(rand.New(rand.NewPCG(seed, 0)), world)
		for range 60 {
			if b := g.Next().Bytes; len(b) < 300 {
				f.Add(byte(seed), b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, world byte, frame []byte) {
		process(t, worlds[world%4], frame)
	})
}

// FuzzProcess holds any frame against the invariants. testdata has short frames of the generator,
// of most kinds and of each reason, and among them ICMP errors of all kinds.
func FuzzProcess(f *testing.F) {
	tables := frames.Tables(1)
	f.Fuzz(func(t *testing.T, frame []byte) {
		process(t, tables, frame)
	})
}
