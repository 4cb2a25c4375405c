// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// testConfig accepts server4 and server6, and as inner destinations the two VIPs.
func testConfig() Config {
	return Config{
		Interface:   "lo",
		TunnelAddrs: []netip.Addr{server4, server6},
		VIPs:        []netip.Addr{vip4, vip6},
		Log:         slog.New(slog.DiscardHandler),
	}
}

// newDecap loads the program and frees it at the end of the test.
func newDecap(t *testing.T, cfg Config) *Decap {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// readCounters fails the test if they cannot be read.
func readCounters(t *testing.T, d *Decap) Counters {
	t.Helper()
	c, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// countersSince is how much all counters grew.
func countersSince(t *testing.T, d *Decap, before Counters) Counters {
	t.Helper()
	c := readCounters(t, d)
	for r := range c.Reasons {
		c.Reasons[r] -= before.Reasons[r]
	}
	for k := range c.Kinds {
		c.Kinds[k].Packets -= before.Kinds[k].Packets
		c.Kinds[k].Bytes -= before.Kinds[k].Bytes
	}
	return c
}

// runFrame passes one frame through the program.
func runFrame(t *testing.T, d *Decap, frame []byte) (lb.Verdict, []byte) {
	t.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64)}
	ret, err := d.objects.RemoraDecap.Run(&opts)
	if err != nil {
		t.Fatalf("run frame % x: %v", frame, err)
	}
	return lb.Verdict(ret), opts.DataOut
}

// frameCase is a frame and everything that should become of it.
type frameCase struct {
	name   string
	in     []byte
	out    []byte // nil: as it was
	reason Reason
	// kind and bytes count if the reason is Decapsulated.
	kind  Kind
	bytes int
}

// open is the case of a tunnel that must be opened to exactly its inner packet.
func open(name string, u tunnel) frameCase {
	return frameCase{name, u.frame(), u.opened(), Decapsulated, u.kind, len(u.inner)}
}

// end is the case of a frame that ends for another reason, untouched.
func end(name string, reason Reason, frame []byte) frameCase {
	return frameCase{name: name, in: frame, reason: reason}
}

func (c frameCase) check(t *testing.T, d *Decap) {
	t.Helper()
	before := readCounters(t, d)
	verdict, out := runFrame(t, d, c.in)
	if verdict != c.reason.Verdict() {
		t.Errorf("verdict is %s, want %s", verdict, c.reason.Verdict())
	}
	want := c.out
	if want == nil {
		want = c.in
	}
	if !bytes.Equal(out, want) {
		t.Errorf("frame is\n% x\nwant\n% x", out, want)
	}
	var counters Counters
	counters.Reasons[c.reason] = 1
	if c.reason == Decapsulated {
		counters.Kinds[c.kind] = Count{Packets: 1, Bytes: uint64(c.bytes)}
	}
	if diff := cmp.Diff(counters, countersSince(t, d, before)); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func checkFrames(t *testing.T, cfg Config, cases []frameCase) {
	t.Helper()
	require.Root(t)
	d := newDecap(t, cfg)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, d) })
	}
}

// IPv4 options: router alert, and the longest there can be.
var (
	shortOptions = []byte{0x94, 4, 0, 0}
	longOptions  = append(bytes.Repeat([]byte{1}, 39), 0)
)

func TestOpen(t *testing.T) {
	var cases []frameCase
	for kind := range KindLen {
		u := tunnel{kind: kind, inner: inner(kind.inner6(), 0xb8, "hello")}
		variants := map[string]func(*tunnel){
			"plain":           func(*tunnel) {},
			"one tag":         func(u *tunnel) { u.tags = []int{typeVLAN} },
			"service tag":     func(u *tunnel) { u.tags = []int{typeQinQ} },
			"two tags":        func(u *tunnel) { u.tags = []int{typeQinQ, typeVLAN} },
			"two VLAN tags":   func(u *tunnel) { u.tags = []int{typeVLAN, typeVLAN} },
			"trailer":         func(u *tunnel) { u.trailer = []byte("trailer") },
			"padding":         func(u *tunnel) { u.padding = []byte("padding") },
			"tags and extras": func(u *tunnel) { u.tags, u.padding, u.trailer = []int{typeVLAN}, []byte{1}, []byte{2} },
		}
		if !kind.outer6() {
			variants["short options"] = func(u *tunnel) { u.options = shortOptions }
			variants["long options"] = func(u *tunnel) { u.options = longOptions }
			variants["long options, two tags"] = func(u *tunnel) { u.options, u.tags = longOptions, []int{typeQinQ, typeVLAN} }
		}
		for name, vary := range variants {
			v := u
			vary(&v)
			cases = append(cases, open(kind.String()+"/"+name, v))
		}
		empty := u
		empty.inner = ip{src: client4, dst: vip4, protocol: protocolTCP}.packet(nil)
		if kind.inner6() {
			empty.inner = ip{src: client6, dst: vip6, protocol: protocolTCP}.packet(nil)
		}
		cases = append(cases, open(kind.String()+"/inner header only", empty))
	}
	options := ip{src: client4, dst: vip4, protocol: protocolTCP, options: longOptions}.packet([]byte("x"))
	fragment := with(inner(false, 0, "hello"), 6, 0x20, 0)
	cases = append(cases,
		open("inner options", tunnel{kind: IPIP4in4, inner: options}),
		open("inner fragment", tunnel{kind: GUE4in6, inner: fragment}),
	)
	checkFrames(t, testConfig(), cases)
}

func TestPassUntouched(t *testing.T) {
	u4 := tunnel{kind: IPIP4in4, inner: inner(false, 0, "hello")}
	u6 := tunnel{kind: IPIP6in6, inner: inner(true, 0, "hello")}
	g4 := tunnel{kind: GUE4in4, inner: u4.inner}
	g6 := tunnel{kind: GUE4in6, inner: u4.inner}
	tags := tunnel{kind: IPIP4in4, inner: u4.inner, tags: []int{typeQinQ, typeVLAN}}
	three := tunnel{kind: IPIP4in4, inner: u4.inner, tags: []int{typeQinQ, typeVLAN, typeVLAN}}
	otherVIP4 := ip{src: client4, dst: stranger4, protocol: protocolTCP}.packet(nil)
	otherVIP6 := ip{src: client6, dst: stranger6, protocol: protocolTCP}.packet(nil)
	cases := []frameCase{
		end("ARP", NotIP, with(u4.frame(), 12, 8, 6)),
		end("three tags", NotIP, three.frame()),
		end("ends after Ethernet", OuterTruncated, u4.frame()[:14]),
		end("ends in the tag", OuterTruncated, tags.frame()[:17]),
		end("ends in the second tag", OuterTruncated, tags.frame()[:21]),
		end("ends after the tags", OuterTruncated, tags.frame()[:22]),
		end("ends in outer IPv4", OuterTruncated, u4.frame()[:14+19]),
		end("ends in outer IPv6", OuterTruncated, u6.frame()[:14+39]),
		end("ends in outer UDP over IPv4", OuterTruncated, g4.frame()[:14+20+7]),
		end("ends in outer UDP over IPv6", OuterTruncated, g6.frame()[:14+40+7]),
		end("ends in outer options before UDP", OuterTruncated,
			tunnel{kind: GUE4in4, inner: u4.inner, options: longOptions}.frame()[:14+40]),
		end("outer IPv4 says version 6", OuterMalformed, with(u4.frame(), 14, 0x65)),
		end("outer IPv4 header of 16 bytes", OuterMalformed, with(u4.frame(), 14, 0x44)),
		end("outer IPv6 says version 4", OuterMalformed, with(u6.frame(), 14, 0x45)),
		end("first fragment of 4in4", OuterFragment, with(u4.frame(), 14+6, 0x20, 0)),
		end("last fragment of 4in4", OuterFragment, with(u4.frame(), 14+6, 0, 1)),
		end("first fragment of GUE", OuterFragment, with(g4.frame(), 14+6, 0x20, 0)),
		end("fragment header in outer IPv6", OuterFragment, with(u6.frame(), 14+6, 44)),
		end("TCP", OtherProtocol, with(u4.frame(), 14+9, protocolTCP)),
		end("fragment of TCP", OtherProtocol, with(with(u4.frame(), 14+9, protocolTCP), 14+6, 0x20, 0)),
		end("TCP over IPv6", OtherProtocol, with(u6.frame(), 14+6, protocolTCP)),
		end("IPv4 protocol 43 is no extension", OtherProtocol, with(u4.frame(), 14+9, 43)),
		end("other UDP port", OtherPort, tunnel{kind: GUE4in4, inner: u4.inner, port: 6081}.frame()),
		end("other UDP port over IPv6", OtherPort, tunnel{kind: GUE6in6, inner: u6.inner, port: 6081}.frame()),
		end("4in4 to another address", OtherAddress, with(u4.frame(), 14+16, stranger4.AsSlice()...)),
		end("6in6 to another address", OtherAddress, with(u6.frame(), 14+24, stranger6.AsSlice()...)),
		end("GUE to another address", OtherAddress, with(g4.frame(), 14+16, stranger4.AsSlice()...)),
		end("malformed, to another address", OtherAddress, with(with(u4.frame(), 14+16, stranger4.AsSlice()...), 14+2, 0, 1)),
		end("inner destination is no VIP", NotVIP, tunnel{kind: IPIP4in4, inner: otherVIP4}.frame()),
		end("inner IPv6 destination is no VIP", NotVIP, tunnel{kind: IPIP6in4, inner: otherVIP6}.frame()),
		end("GUE, inner destination is no VIP", NotVIP, tunnel{kind: GUE6in6, inner: otherVIP6}.frame()),
		open("don't-fragment bit", tunnel{kind: IPIP4in4, inner: u4.inner}),
	}
	for _, next := range []byte{0, 43, 51, 60} {
		cases = append(cases, end(fmt.Sprintf("extension header %d", next), OuterExtension, with(u6.frame(), 14+6, next)))
	}
	df := frameCase{"don't fragment", with(u4.frame(), 14+6, 0x40, 0), u4.opened(), Decapsulated, IPIP4in4, len(u4.inner)}
	checkFrames(t, testConfig(), append(cases, df))
}

// lengthCases are the ways in which lengths of one tunnel can contradict each other.
func lengthCases(u tunnel) []frameCase {
	frame, outer := u.frame(), u.at()
	at, innerBytes := outer+u.outerBytes(), len(u.inner)
	cut := func(n int) tunnel { v := u; v.inner = u.inner[:n]; return v }
	cases := []frameCase{
		end("frame one byte short", OuterLength, frame[:len(frame)-1]),
		end("nothing inside", InnerTruncated, cut(0).frame()),
		end("one byte inside", InnerTruncated, cut(1).frame()),
		end("inner header one byte short", InnerTruncated, cut(innerHeader(u)-1).frame()),
		end("inner one byte short", InnerLength, cut(innerBytes-1).frame()),
		end("inner header only", InnerLength, cut(innerHeader(u)).frame()),
	}
	// What is missing lies behind the outer packet, where it must not be looked for.
	for _, n := range []int{0, 1, innerHeader(u) - 1} {
		v := cut(n)
		v.trailer = u.inner[n:]
		cases = append(cases, end(fmt.Sprintf("inner header in the trailer but %d bytes", n), InnerTruncated, v.frame()))
	}
	v := cut(innerBytes - 1)
	v.trailer = u.inner[innerBytes-1:]
	cases = append(cases, end("last byte in the trailer", InnerLength, v.frame()))
	for _, v := range []byte{0x00, 0x10, 0x30, 0x50, 0x70, 0xf0} {
		cases = append(cases, end(fmt.Sprintf("inner version %d", v>>4), InnerVersion, with(frame, at, v|frame[at]&0xf)))
	}
	if !u.kind.gue() {
		cases = append(cases, end("inner version of the other family", InnerVersion, with(frame, at, frame[at]^0x20)))
	}
	if !u.kind.inner6() {
		long := ip{src: client4, dst: vip4, protocol: protocolTCP, options: longOptions}.packet(nil)
		v := u
		v.inner = long[:59]
		cases = append(cases,
			end("inner header of 16 bytes", InnerMalformed, with(frame, at, 0x44)),
			end("inner total length below its header", InnerMalformed, with(frame, at+2, 0, 19)),
			end("inner options one byte short", InnerTruncated, v.frame()),
			end("inner total length one too many", InnerLength, with(frame, at+2, be16(innerBytes+1)...)),
		)
	} else {
		cases = append(cases, end("inner payload length one too many", InnerLength, with(frame, at+4, be16(innerBytes-40+1)...)))
	}
	if u.kind.gue() {
		udpLen := outer + u.outerBytes() - 4
		cases = append(cases,
			end("UDP length 7", OuterLength, with(frame, udpLen, 0, 7)),
			end("UDP length 0", OuterLength, with(frame, udpLen, 0, 0)),
			end("UDP length one too many", OuterLength, with(frame, udpLen, be16(8+innerBytes+1)...)),
			end("UDP length one too few", InnerLength, with(frame, udpLen, be16(8+innerBytes-1)...)),
		)
	}
	if u.kind.outer6() {
		return append(cases, end("outer payload length one too many", OuterLength, with(frame, outer+4, be16(len(frame)-outer-40+1)...)))
	}
	return append(cases,
		end("outer total length one too many", OuterLength, with(frame, outer+2, be16(len(frame)-outer+1)...)),
		end("outer total length below its headers", OuterLength, with(frame, outer+2, be16(u.outerBytes()-1)...)),
		end("outer total length 0", OuterLength, with(frame, outer+2, 0, 0)))
}

func innerHeader(u tunnel) int {
	if u.kind.inner6() {
		return 40
	}
	return 20
}

func TestMalformed(t *testing.T) {
	for kind := range KindLen {
		u := tunnel{kind: kind, inner: inner(kind.inner6(), 0, "hello")}
		t.Run(kind.String(), func(t *testing.T) { checkFrames(t, testConfig(), lengthCases(u)) })
		u.tags = []int{typeQinQ, typeVLAN}
		t.Run(kind.String()+" tagged", func(t *testing.T) { checkFrames(t, testConfig(), lengthCases(u)) })
	}
	tiny := ethernet(ip{src: balancer4, dst: server4, protocol: protocolIPIP, options: longOptions}.packet(nil))
	checkFrames(t, testConfig(), []frameCase{
		end("frame ends in outer options", OuterLength, tiny[:14+40]),
		end("no payload behind outer options", InnerTruncated, tiny),
	})
}

func TestSettings(t *testing.T) {
	u := tunnel{kind: GUE4in4, inner: ip{src: client4, dst: stranger4, protocol: protocolTCP}.packet(nil)}
	t.Run("no VIPs", func(t *testing.T) {
		cfg := testConfig()
		cfg.VIPs = nil
		checkFrames(t, cfg, []frameCase{
			open("any inner destination", u),
			open("any inner IPv6 destination", tunnel{kind: IPIP6in4, inner: ip{src: client6, dst: stranger6, protocol: protocolTCP}.packet(nil)}),
		})
	})
	t.Run("port", func(t *testing.T) {
		cfg := testConfig()
		cfg.GUEPort = 9999
		ours := tunnel{kind: GUE6in4, inner: inner(true, 0, "x"), port: 9999}
		checkFrames(t, cfg, []frameCase{
			open("the configured port", ours),
			end("the default port", OtherPort, tunnel{kind: GUE6in4, inner: ours.inner}.frame()),
		})
	})
	t.Run("one tunnel address, twice", func(t *testing.T) {
		cfg := testConfig()
		cfg.TunnelAddrs = []netip.Addr{server6, server6}
		checkFrames(t, cfg, []frameCase{
			open("the address", tunnel{kind: IPIP4in6, inner: inner(false, 0, "x")}),
			end("the other family's", OtherAddress, tunnel{kind: IPIP4in4, inner: inner(false, 0, "x")}.frame()),
		})
	})
}

// TestECN is figure 4 of RFC 6040: rows are the arriving inner codepoint, columns the outer.
func TestECN(t *testing.T) {
	const notECT, ect1, ect0, ce, drop = 0, 1, 2, 3, 0xff
	table := [4][4]byte{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: drop},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}
	names := [4]string{"not-ECT", "ECT(1)", "ECT(0)", "CE"}
	const dscp = 0xb8
	var cases []frameCase
	for kind := range KindLen {
		for in, row := range table {
			for out, want := range row {
				u := tunnel{kind: kind, tos: dscp | byte(out), inner: inner(kind.inner6(), dscp|byte(in), "hello")}
				name := fmt.Sprintf("%s/%s in %s", kind, names[in], names[out])
				if want == drop {
					cases = append(cases, end(name, ECN, u.frame()))
					continue
				}
				c := open(name, u)
				c.out = ethernet(inner(kind.inner6(), dscp|want, "hello"))
				cases = append(cases, c)
			}
		}
	}
	checkFrames(t, testConfig(), cases)
}

// TestECNChecksum compares the updated header checksum with one computed anew.
func TestECNChecksum(t *testing.T) {
	require.Root(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := newDecap(t, testConfig())
	for range 2000 {
		h := ip{src: client4, dst: vip4, protocol: protocolUDP, id: uint16(rng.Uint32()), tos: byte(rng.Uint32())&^3 | byte(1+rng.IntN(2))}
		marked := h
		marked.tos |= 3
		_, out := runFrame(t, d, tunnel{kind: IPIP4in4, tos: 3, inner: h.packet(nil)}.frame())
		if want := ethernet(marked.packet(nil)); !bytes.Equal(out, want) {
			t.Fatalf("header %+v becomes\n% x\nwant\n% x", h, out, want)
		}
	}
}

// TestRandomFrames: whatever arrives is counted once, gets the verdict of its reason, and is
// untouched unless it was decapsulated.
func TestRandomFrames(t *testing.T) {
	require.Root(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := newDecap(t, testConfig())
	var seen [ReasonLen]int
	for range 5000 {
		frame := randomFrame(rng)
		before := readCounters(t, d)
		verdict, out := runFrame(t, d, frame)
		grown := countersSince(t, d, before)
		reason := Reason(slices.Index(grown.Reasons[:], 1))
		want := Counters{}
		if reason >= ReasonLen {
			t.Fatalf("frame % x is counted for no reason", frame)
		}
		want.Reasons[reason] = 1
		seen[reason]++
		if grown.Reasons != want.Reasons || verdict != reason.Verdict() {
			t.Fatalf("frame % x: verdict %s, reasons %v", frame, verdict, grown.Reasons)
		}
		if decapsulated := reason == Decapsulated; (grown.Total().Packets == 1) != decapsulated {
			t.Fatalf("frame % x: reason %s, kinds %v", frame, reason, grown.Kinds)
		} else if !decapsulated && !bytes.Equal(out, frame) {
			t.Fatalf("frame % x ends for %s and is changed to % x", frame, reason, out)
		}
	}
	t.Logf("reasons met: %v", seen)
}

// randomFrame is a good frame, cut or with some of its header bytes changed.
func randomFrame(rng *rand.Rand) []byte {
	kind := Kind(rng.IntN(int(KindLen)))
	u := tunnel{kind: kind, tos: byte(rng.Uint32()), inner: inner(kind.inner6(), byte(rng.Uint32()), "hello")}
	u.tags = []int{typeQinQ, typeVLAN}[:rng.IntN(3)]
	frame := u.frame()
	for range rng.IntN(4) {
		frame[12+rng.IntN(len(frame)-12)] = byte(rng.Uint32())
	}
	if rng.IntN(3) == 0 {
		frame = frame[:14+rng.IntN(len(frame)-14)]
	}
	return frame
}

// TestVerifierWork keeps the load time in hand: what the verifier walks is mostly paths, three of
// tags times eight kinds, not instructions.
func TestVerifierWork(t *testing.T) {
	require.Root(t)
	d := newDecap(t, testConfig())
	info, err := d.objects.RemoraDecap.Info()
	if err != nil {
		t.Fatal(err)
	}
	n, ok := info.VerifiedInstructions()
	if !ok {
		t.Skip("this kernel (before 5.16) does not tell")
	}
	t.Logf("%d instructions walked", n)
	if n > 12000 {
		t.Errorf("the verifier walked %d instructions, want at most 12000", n)
	}
}

// TestNumbers compares names and numbers of the two enums with those in the C header.
func TestNumbers(t *testing.T) {
	header, err := os.ReadFile("../../bpf/decap_types.h")
	if err != nil {
		t.Fatal(err)
	}
	var reasons, kinds []string
	for r := range ReasonLen {
		reasons = append(reasons, r.String())
	}
	for k := range KindLen {
		kinds = append(kinds, k.String())
	}
	for enum, want := range map[string][]string{"decap_reason": append(reasons, "reason_len"), "decap_kind": append(kinds, "kind_len")} {
		if diff := cmp.Diff(want, enumerators(t, string(header), enum)); diff != "" {
			t.Errorf("enum %s (-Go +C):\n%s", enum, diff)
		}
	}
}

// enumerators are the names in an enum without explicit values, in the words of Go.
func enumerators(t *testing.T, header, enum string) []string {
	t.Helper()
	_, body, found := strings.Cut(header, "enum "+enum+" {")
	body, _, closed := strings.Cut(body, "}")
	if !found || !closed || strings.Contains(body, "=") {
		t.Fatalf("no enum %s without values in the header", enum)
	}
	var names []string
	for _, name := range strings.Split(body, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, strings.ToLower(strings.TrimPrefix(name, "DECAP_")))
		}
	}
	return names
}
