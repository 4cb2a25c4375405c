// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Parse: headers to struct packet. parse_plain knows what nearly every packet looks like and gives
 * up on anything else; parse_any knows everything, and is part of the slow path. Both check, in
 * that order, what lies in the frame and what the headers say of themselves.
 */
#pragma once

#include "parse_plain.h"

#define IP6_FRAGMENT bpf_htons(0xfff9)	/* offset and more bit, RFC 8200 section 4.5 */
#define IP6_EXTENSIONS_MAX 6

/* After the addresses: there are no ports. */
static __always_inline enum reason packet_is_fragment(struct packet *p)
{
	p->ports = 0;
	p->fragment = 1;
	return REASON_FRAGMENT;
}

static __always_inline enum reason parse_any4(struct packet *p, void *ip, void *end)
{
	__u32 room = end - ip, header, payload;

	if (ip + IP4_BYTES > end)
		return REASON_TRUNCATED;
	header = (LD8(ip) & 15) * 4;
	if (LD8(ip) >> 4 != 4 || header < IP4_BYTES)
		return REASON_MALFORMED;
	p->bytes = bpf_ntohs(LD16(ip + 2));
	if (header > room)
		return REASON_TRUNCATED;
	if (p->bytes < header)
		return REASON_MALFORMED;
	if (p->bytes > room)
		return REASON_TRUNCATED;
	payload = p->bytes - header;
	p->protocol = LD8(ip + 9);
	p->is_v6 = 0;
	p->dst[0] = LD32(ip + 16);
	p->dst[1] = 0;
	p->l4 = header;
	if (LD16(ip + 6) & IP4_FRAGMENT) {
		packet_from_ip4(p, ip, ip);
		return packet_is_fragment(p);
	}
	if (p->protocol == IPPROTO_ICMP)
		return icmp4_parse(p, ip, end, header, payload);
	if (!is_tcp_or_udp(p->protocol))
		return REASON_OTHER_PROTOCOL;
	/* The second condition follows from the lengths; the verifier does not see that. */
	if (payload < l4_min_bytes(p->protocol) || ip + header + UDP_BYTES > end)
		return REASON_TRUNCATED;
	packet_from_ip4(p, ip, ip + header);
	return REASON_FORWARDED;
}

static __always_inline __u32 ip6_extension_bytes(__u8 protocol, __u8 length_field)
{
	if (protocol == IPPROTO_FRAGMENT)
		return 8;
	if (protocol == IPPROTO_AH)
		return (length_field + 2) * 4; /* RFC 4302 section 2.2 */
	return (length_field + 1) * 8;
}

/*
 * Where the next header starts, from the IP header. Read back from memory, so that the verifier
 * takes all ways of coming here for one; the mask is beyond 40 + 6 * 2048 and changes nothing.
 */
static __always_inline __u32 ip6_l4(const struct packet *p)
{
	return LD16(&p->l4) & 0x3fff;
}

/* One extension header; leaves the protocol of what follows it, and where that starts. */
static __always_inline enum reason ip6_skip_extension(struct packet *p, void *ip, void *end)
{
	__u8 protocol = p->protocol;
	__u32 at = ip6_l4(p), next;
	void *header = ip + at;

	/* The second condition follows from the first; the verifier does not see that. */
	if (at + 8 > p->bytes || header + 8 > end)
		return REASON_TRUNCATED;
	next = at + ip6_extension_bytes(protocol, LD8(header + 1));
	if (next > p->bytes)
		return REASON_TRUNCATED;
	if (protocol == IPPROTO_ROUTING && LD8(header + 3))
		return REASON_IPV6_EXTENSION;
	p->protocol = LD8(header);
	p->l4 = next;
	if (protocol == IPPROTO_FRAGMENT && LD16(header + 2) & IP6_FRAGMENT)
		return REASON_FRAGMENT;
	return REASON_FORWARDED;
}

static __always_inline int ip6_is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_AH ||
	       protocol == IPPROTO_FRAGMENT;
}

static __always_inline enum reason ip6_skip_extensions(struct packet *p, void *ip, void *end)
{
	p->l4 = IP6_BYTES;
#pragma clang loop unroll(full)
	for (int i = 0; i < IP6_EXTENSIONS_MAX; i++) {
		enum reason why;

		if (!ip6_is_extension(LD8(&p->protocol)))
			return REASON_FORWARDED;
		why = ip6_skip_extension(p, ip, end);
		if (why)
			return why;
	}
	return ip6_is_extension(LD8(&p->protocol)) ? REASON_IPV6_EXTENSION : REASON_FORWARDED;
}

static __always_inline enum reason parse_any6(struct packet *p, void *ip, void *end)
{
	__u32 room = end - ip, offset, payload;
	enum reason why;

	if (ip + IP6_BYTES > end)
		return REASON_TRUNCATED;
	if (LD8(ip) >> 4 != 6)
		return REASON_MALFORMED;
	p->bytes = IP6_BYTES + bpf_ntohs(LD16(ip + 4));
	if (p->bytes > room)
		return REASON_TRUNCATED;
	p->is_v6 = 1;
	p->protocol = LD8(ip + 6);
	p->dst[0] = LD64(ip + 24);
	p->dst[1] = LD64(ip + 32);
	why = ip6_skip_extensions(p, ip, end);
	if (why == REASON_FRAGMENT) {
		packet_from_ip6(p, ip, ip);
		return packet_is_fragment(p);
	}
	if (why)
		return why;
	offset = ip6_l4(p);
	payload = p->bytes - offset;
	if (p->protocol == IPPROTO_ICMPV6)
		return icmp6_parse(p, ip, end, offset, payload);
	if (!is_tcp_or_udp(p->protocol))
		return REASON_OTHER_PROTOCOL;
	/* The second condition follows from the lengths; the verifier does not see that. */
	if (payload < l4_min_bytes(p->protocol) || ip + offset + UDP_BYTES > end)
		return REASON_TRUNCATED;
	packet_from_ip6(p, ip, ip + offset);
	return REASON_FORWARDED;
}

/*
 * Fragments end as REASON_FRAGMENT and echo requests as REASON_ECHO_ANSWERED, whatever their
 * destination: the slow path looks at that. Of everything but what is truncated or malformed, the
 * destination, protocol and lengths are left, for those who take outer headers off. A function of its own, so that the verifier walks what
 * follows it once and not for each way through it.
 */
__attribute__((noinline)) int parse_any(struct xdp_md *ctx, struct packet *p)
{
	void *data, *end;
	__u32 l3 = ETH_BYTES;
	__be16 type;

	if (!ctx || !p)
		return REASON_MALFORMED; /* never: the verifier wants arguments to be checked */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;

	if (data + ETH_BYTES > end)
		return REASON_TRUNCATED;
	type = LD16(data + 12);
#pragma clang loop unroll(full)
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (data + l3 + VLAN_TAG_BYTES > end)
			return REASON_TRUNCATED;
		type = LD16(data + l3 + 2);
		l3 += VLAN_TAG_BYTES;
	}
	p->l3 = l3;
	if (type == bpf_htons(ETH_P_IP))
		return parse_any4(p, data + l3, end);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_any6(p, data + l3, end);
	return REASON_NOT_IP;
}
