// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"

	"github.com/remora-lb/remora/lb"
)

// PacketSize is the length of a traffic's frames in bytes, from the Ethernet header on, without the four
// bytes of the checksum behind it.
type PacketSize struct {
	Name string
	// Pattern are the lengths of frames that follow one another, at most 12.
	Pattern []int
}

// Limits of frames: a stamp of 16 bytes must fit behind the UDP header.
const (
	minFrame4    = 64
	minFrame6    = 78
	maxFrameSize = 1514
)

// imix is the mix of 7 short, 4 middle and 1 long frames that stands for the internet's, spread evenly.
func imix(short int) []int {
	return []int{short, 590, short, short, 590, short, 1514, short, 590, short, 590, short}
}

// ParsePacketSize reads a number of bytes, or imix. Frames of IPv6 have at least 78 bytes, and so imix has
// 78 in place of 64 there.
func ParsePacketSize(s string, ipv6 bool) (PacketSize, error) {
	least := minFrame4
	if ipv6 {
		least = minFrame6
	}
	if s == "imix" {
		return PacketSize{s, imix(least)}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > maxFrameSize {
		return PacketSize{}, fmt.Errorf("packet size %q is not imix, nor a number from %d to %d", s, least, maxFrameSize)
	}
	return PacketSize{s, []int{n}}, nil
}

// mean is the mean length of frames.
func (s PacketSize) mean() float64 {
	sum := 0
	for _, n := range s.Pattern {
		sum += n
	}
	return float64(sum) / float64(len(s.Pattern))
}

// wireOverhead is what a frame takes on a wire beside itself: checksum, preamble, gap.
const wireOverhead = 4 + 8 + 12

// load is what a generator sends.
type load struct {
	size        PacketSize
	destination lb.VIP // UDP
	// mac is the destination on the link.
	mac [6]byte
	// sources and ports are how many of each there are, powers of two; each lane has sources of its own.
	sources, ports int
	// rate is the packets in a second of all lanes; 0: as many as possible.
	rate float64
}

func (l load) ipv6() bool { return l.destination.Addr.Is6() }

func (l load) flows() int { return l.sources * l.ports }

// Limits of loads. Ports begin at 1024.
const (
	maxSources = 1 << 20
	maxPorts   = 1 << 15
	firstPort  = 1024
)

// Offsets in the generator's frames.
const (
	udp4At   = etherLen + 20
	udp6At   = etherLen + 40
	udpLen   = 8
	stampLen = 16
	// headLen is as HEAD_WORDS in bpf/generator.bpf.c, patternLen as SIZES_LEN.
	headLen    = 64
	patternLen = 12
	stampMagic = 0x72656d6f
)

// frame is the template of n bytes: number, time, source and checksums are written by the generator.
func (l load) frame(n int) []byte {
	udpAt := udp4At
	if l.ipv6() {
		udpAt = udp6At
	}
	datagram := udpDatagram(firstPort, l.destination.Port, n-udpAt-udpLen)
	binary.BigEndian.PutUint32(datagram[udpLen:], stampMagic)
	packet, kind := ipv4Packet(netip.AddrFrom4([4]byte{}), l.destination.Addr, byte(lb.UDP), datagram), uint16(etherIPv4)
	if l.ipv6() {
		packet, kind = ipv6Packet(addresses().client6, l.destination.Addr, byte(lb.UDP), datagram), etherIPv6
	}
	f := etherFrame(kind, packet)
	copy(f, l.mac[:])
	return f
}

// template is the frame in the generator's form.
func (l load) template(n int) generatorFrame {
	f := l.frame(n)
	t := generatorFrame{Len: uint32(n)}
	for i := range t.Words {
		t.Words[i] = binary.NativeEndian.Uint64(f[8*i:])
	}
	if l.ipv6() {
		t.UdpSum = l.udpSum(f)
		return t
	}
	f[24], f[25] = 0, 0 // the checksum of the template itself
	t.IpSum = wordSum(f[etherLen : etherLen+20])
	return t
}

// udpSum is what the checksum covers, without the source's last word, the source port, number and time.
func (l load) udpSum(frame []byte) uint32 {
	f := slices.Clone(frame)
	copy(f[etherLen+20:], []byte{0, 0, 0, 0}) // last word of the source
	copy(f[udp6At:], []byte{0, 0})            // source port
	udp := f[udp6At:]
	sum := wordSum(f[etherLen+8:udp6At]) + wordSum(udp) + uint32(lb.UDP) + uint32(len(udp))
	return sum&0xffff + sum>>16
}

// wordSum adds 16-bit words; an odd last byte is the upper half of one.
func wordSum(b []byte) (sum uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	return sum
}

func isPowerOfTwo(n int) bool { return n > 0 && bits.OnesCount(uint(n)) == 1 }
