// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bytes"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestQuote(t *testing.T) {
	segment := TCP{SrcPort: 443, DstPort: 50000, Options: []byte{1}, Data: []byte("data")} // 28 bytes
	ip4 := IPv4{Src: server4, Dst: client4, Payload: segment}
	options := ip4
	options.Options = []byte{1, 1, 1, 1, 1}
	ip6 := IPv6{Src: server6, Dst: client6, Payload: segment}
	extended := ip6
	extended.Extensions = []Extension{HopByHop(0), Authentication(1)}
	cases := []struct {
		name   string
		packet Packet
		n      int
		want   int
	}{
		{"IPv4", ip4, QuotedLen, 28},
		{"IPv4, header alone", ip4, 0, 20},
		{"IPv4, all", ip4, 28, 48},
		{"IPv4, more than there is", ip4, 29, 48},
		{"IPv4, options", options, QuotedLen, 36},
		{"IPv6", ip6, QuotedLen, 48},
		{"IPv6, extension headers", extended, QuotedLen, 68},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Quote(c.packet, c.n); !bytes.Equal(got, c.packet.Bytes()[:c.want]) {
				t.Errorf("%d bytes %x, want the first %d of %x", len(got), got, c.want, c.packet.Bytes())
			}
		})
	}
}

func TestReversed(t *testing.T) {
	if got := Reversed(UDP{SrcPort: 1, DstPort: 2, NoChecksum: true}).(UDP); got.SrcPort != 2 || got.DstPort != 1 || !got.NoChecksum {
		t.Errorf("%+v", got)
	}
	if got := Reversed(TCP{SrcPort: 1, DstPort: 2, Seq: 3}).(TCP); got.SrcPort != 2 || got.DstPort != 1 || got.Seq != 3 {
		t.Errorf("%+v", got)
	}
}

// TestICMPErrorsMeetWhatTheyShould: a kind of error that all ended for one reason would test little.
func TestICMPErrorsMeetWhatTheyShould(t *testing.T) {
	tables := Tables(1)
	g := generator(t, tables, 3)
	const each = 10_000
	cases := []struct {
		name  string
		frame func() []byte
		want  map[lb.Reason]int // at least so many of each 1000
	}{
		{"sound", g.icmpError, map[lb.Reason]int{lb.ReasonForwarded: 500, lb.ReasonTooBig: 10, lb.ReasonRingEmpty: 10}},
		{"stray", g.strayError, map[lb.Reason]int{lb.ReasonICMP: 400, lb.ReasonFragment: 50, lb.ReasonNotVIP: 20, lb.ReasonForwarded: 20}},
		{"cut", g.cutError, map[lb.Reason]int{lb.ReasonICMP: 400, lb.ReasonTruncated: 20, lb.ReasonForwarded: 100}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var reasons [lb.ReasonLen]int
			for range each {
				reasons[tables.Process(c.frame(), nil).Reason]++
			}
			for reason, least := range c.want {
				if n := reasons[reason]; n < least*each/1000 {
					t.Errorf("%d of %d end as %s", n, each, reason)
				}
			}
		})
	}
}

// TestCutErrorsEndAtEveryByte follows the messages that end around the least that they have to
// quote, without anything around them: each end is met, and those that are long enough are known.
func TestCutErrorsEndAtEveryByte(t *testing.T) {
	tables := Tables(1)
	g := generator(t, tables, 4)
	ends := map[int]map[bool]bool{} // by the IP packet's length: whether the flow was told
	told := false
	tables.Trace = func(step, _ string) { told = told || step == "vip" }
	for range 20_000 {
		b := g.cutError()
		if b[12] != 8 || b[13] != 0 || b[14] != 0x45 { // tags, IPv6, options
			continue
		}
		told = false
		tables.Process(b, nil)
		length := int(b[16])<<8 | int(b[17])
		if ends[length] == nil {
			ends[length] = map[bool]bool{}
		}
		ends[length][told] = true
	}
	const leastLen = 20 + 8 + 20 + QuotedLen
	for length := 20; length < leastLen+40; length++ {
		if got := ends[length]; !got[false] || got[true] != (length >= leastLen) {
			t.Errorf("packets of %d bytes: flows told: %v", length, got)
		}
	}
}
