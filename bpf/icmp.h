// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * ICMP: echo requests are told apart, and errors parsed to the flow that they are about, from the
 * client's side, so that they go where the client's packets go: docs/packet-path.md section 2. An
 * error's length and TOS stay its own. Part of the slow path.
 */
#pragma once

#define ICMP_BYTES 8
#define ICMP_QUOTED_BYTES 8	/* at least so much follows the quoted IP header: RFC 792 */
#define ICMP4_UNREACHABLE 3	/* RFC 792 */
#define ICMP4_ECHO 8		/* the reply is type 0 */
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER 12
#define ICMP6_UNREACHABLE 1	/* RFC 4443 */
#define ICMP6_PARAMETER 4	/* the last of the types of errors that are defined */
#define ICMP6_ECHO 128		/* the reply is type 129 */
#define IP4_OFFSET bpf_htons(0x1fff)	/* fragment offset, RFC 791 */

/* The ports of a packet in the other direction. */
static __always_inline __u32 ports_swap(__u32 ports)
{
	return ports >> 16 | ports << 16;
}

/* quote is the packet that a server sent, as far as it is there; room is what is. */
static __always_inline enum reason quote4_parse(struct packet *p, void *quote, void *end, __u32 room)
{
	__u32 header;
	void *l4;

	if (room < IP4_BYTES || quote + IP4_BYTES > end)
		return REASON_ICMP;
	header = (LD8(quote) & 15) * 4;
	if (LD8(quote) >> 4 != 4 || header < IP4_BYTES || LD16(quote + 6) & IP4_OFFSET)
		return REASON_ICMP;
	p->protocol = LD8(quote + 9);
	l4 = quote + header;
	if (room < header + ICMP_QUOTED_BYTES || l4 + ICMP_QUOTED_BYTES > end)
		return REASON_ICMP;
	if (!is_tcp_or_udp(p->protocol) || LD32(quote + 12) != (__u32)p->dst[0])
		return REASON_ICMP;
	p->src = p->fold = LD32(quote + 16);
	p->ports = ports_swap(LD32(l4));
	p->icmp_error = 1;
	return REASON_FORWARDED;
}

static __always_inline enum reason quote6_parse(struct packet *p, void *quote, void *end, __u32 room)
{
	void *l4 = quote + IP6_BYTES;

	if (room < IP6_BYTES + ICMP_QUOTED_BYTES || l4 + ICMP_QUOTED_BYTES > end)
		return REASON_ICMP;
	p->protocol = LD8(quote + 6);
	if (LD8(quote) >> 4 != 6 || !is_tcp_or_udp(p->protocol))
		return REASON_ICMP;
	if (LD64(quote + 8) != p->dst[0] || LD64(quote + 16) != p->dst[1])
		return REASON_ICMP;
	p->src = LD32(quote + 36);
	p->fold = addr6_hash(quote + 24);
	p->ports = ports_swap(LD32(l4));
	p->icmp_error = 1;
	return REASON_FORWARDED;
}

/* header and payload: bytes of the IP header, and behind it. */
static __always_inline enum reason icmp4_parse(struct packet *p, void *ip, void *end, __u32 header,
					       __u32 payload)
{
	void *icmp = ip + header;
	__u8 type;

	/* The second condition follows from the lengths; the verifier does not see that. */
	if (payload < ICMP_BYTES || icmp + ICMP_BYTES > end)
		return REASON_TRUNCATED;
	type = LD8(icmp);
	if (type == ICMP4_ECHO)
		return header == IP4_BYTES ? REASON_ECHO_ANSWERED : REASON_ICMP;
	if (type != ICMP4_UNREACHABLE && type != ICMP4_TIME_EXCEEDED && type != ICMP4_PARAMETER)
		return REASON_ICMP;
	p->tos = LD8(ip + 1);
	p->client = header + ICMP_BYTES + 16;
	return quote4_parse(p, icmp + ICMP_BYTES, end, payload - ICMP_BYTES);
}

static __always_inline enum reason icmp6_parse(struct packet *p, void *ip, void *end, __u32 offset,
					       __u32 payload)
{
	void *icmp = ip + offset;
	__u8 type;

	/* The second condition follows from the lengths; the verifier does not see that. */
	if (payload < ICMP_BYTES || icmp + ICMP_BYTES > end)
		return REASON_TRUNCATED;
	type = LD8(icmp);
	if (type == ICMP6_ECHO)
		return offset == IP6_BYTES ? REASON_ECHO_ANSWERED : REASON_ICMP;
	if (type < ICMP6_UNREACHABLE || type > ICMP6_PARAMETER)
		return REASON_ICMP;
	p->tos = bpf_ntohs(LD16(ip)) >> 4;
	p->client = offset + ICMP_BYTES + 24;
	return quote6_parse(p, icmp + ICMP_BYTES, end, payload - ICMP_BYTES);
}
