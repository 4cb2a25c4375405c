// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Parse what nearly every packet looks like: IPv4 without options or IPv6 without extension headers,
 * whole, TCP or UDP, no VLAN tag. REASON_UNDECIDED is everything else, good or bad.
 */
#pragma once

#define IP4_FRAGMENT bpf_htons(0x3fff)	/* more-fragments bit and offset, RFC 791 */

static __always_inline void packet_from_ip4(struct packet *p, void *ip, void *l4)
{
	p->is_v6 = 0;
	p->tos = LD8(ip + 1);
	p->src = p->fold = LD32(ip + 12);
	p->dst[0] = LD32(ip + 16);
	p->dst[1] = 0;
	p->ports = LD32(l4);
}

static __always_inline void packet_from_ip6(struct packet *p, void *ip, void *l4)
{
	p->is_v6 = 1;
	p->tos = bpf_ntohs(LD16(ip)) >> 4;
	p->src = LD32(ip + 20);
	p->dst[0] = LD64(ip + 24);
	p->dst[1] = LD64(ip + 32);
	p->fold = addr6_hash(ip + 8);
	p->ports = LD32(l4);
}

static __always_inline __u32 l4_min_bytes(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? TCP_BYTES : UDP_BYTES;
}

static __always_inline enum reason parse_plain4(struct packet *p, void *ip, void *end)
{
	__u32 room = end - ip;

	if (unlikely(ip + IP4_BYTES + UDP_BYTES > end))
		return REASON_UNDECIDED;
	p->protocol = LD8(ip + 9);
	if (unlikely(LD8(ip) != 0x45 || LD16(ip + 6) & IP4_FRAGMENT))
		return REASON_UNDECIDED;
	if (unlikely(!is_tcp_or_udp(p->protocol)))
		return REASON_UNDECIDED;
	p->bytes = bpf_ntohs(LD16(ip + 2));
	if (unlikely(p->bytes < IP4_BYTES + l4_min_bytes(p->protocol) || p->bytes > room))
		return REASON_UNDECIDED;
	p->l4 = IP4_BYTES;
	packet_from_ip4(p, ip, ip + IP4_BYTES);
	return REASON_FORWARDED;
}

static __always_inline enum reason parse_plain6(struct packet *p, void *ip, void *end)
{
	__u32 room = end - ip;

	if (unlikely(ip + IP6_BYTES + UDP_BYTES > end))
		return REASON_UNDECIDED;
	p->protocol = LD8(ip + 6);
	if (unlikely(LD8(ip) >> 4 != 6))
		return REASON_UNDECIDED;
	if (unlikely(!is_tcp_or_udp(p->protocol)))
		return REASON_UNDECIDED;
	p->bytes = IP6_BYTES + bpf_ntohs(LD16(ip + 4));
	if (unlikely(p->bytes < IP6_BYTES + l4_min_bytes(p->protocol) || p->bytes > room))
		return REASON_UNDECIDED;
	p->l4 = IP6_BYTES;
	packet_from_ip6(p, ip, ip + IP6_BYTES);
	return REASON_FORWARDED;
}

static __always_inline enum reason parse_plain(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 type;

	if (unlikely(data + ETH_BYTES > end))
		return REASON_UNDECIDED;
	p->l3 = ETH_BYTES;
	type = LD16(data + 12);
	if (likely(type == bpf_htons(ETH_P_IP)))
		return parse_plain4(p, data + ETH_BYTES, end);
	if (type == bpf_htons(ETH_P_IPV6))
		return parse_plain6(p, data + ETH_BYTES, end);
	return REASON_UNDECIDED;
}
