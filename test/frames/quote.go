// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

// QuotedLen is how many bytes behind its IP header a packet is quoted with at least (RFC 792).
const QuotedLen = 8

// Quote is the data of an ICMP error about a packet: the IP header with its options or extension
// headers, and the first n bytes behind, or all if there are fewer.
func Quote(p Packet, n int) []byte {
	b := p.Bytes()
	end := len(b)
	switch p := p.(type) {
	case IPv4:
		end = 20 + (len(p.Options)+3)/4*4 + n
	case IPv6:
		end = 40 + n
		for _, e := range p.Extensions {
			end += 1 + len(e.Body)
		}
	}
	return b[:min(len(b), end)]
}

// Reversed is what the other side sends in the flow of a segment or datagram: the same with its
// ports swapped. Other payloads have no ports and stay as they are.
func Reversed(p Payload) Payload {
	switch p := p.(type) {
	case TCP:
		p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
		return p
	case UDP:
		p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
		return p
	}
	return p
}

// ErrorTypes are the ICMP or ICMPv6 messages that tell about a packet of a flow.
func ErrorTypes(v6 bool) []uint8 {
	if v6 {
		return []uint8{Unreachable6, TooBig6, TimeExceeded6, ParameterProblem6}
	}
	return []uint8{Unreachable, TimeExceeded, ParameterProblem}
}
