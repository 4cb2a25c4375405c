// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A probe as the host sends it, in the words that outer.h takes. The host wrote it: lengths are
 * those of the socket buffer, and there are no options in front of the ports but IPv4's.
 */
#pragma once

/* The longest headers that are looked at: Ethernet, IP and TCP. What is not in reach is fetched. */
#define PROBE_HEADERS_MAX (ETH_BYTES + IP6_BYTES + TCP_BYTES)

static __always_inline __u32 probe_ports(void *l4, void *end, __u8 protocol)
{
	if (!is_tcp_or_udp(protocol) || l4 + 4 > end)
		return 0; /* ICMP: one flow */
	return LD32(l4);
}

/* Bytes of the transport header, for packets that are still to be cut into segments. */
static __always_inline __u32 probe_l4_bytes(void *l4, void *end, __u8 protocol)
{
	if (protocol != IPPROTO_TCP || l4 + TCP_BYTES > end)
		return UDP_BYTES;
	return (LD8(l4 + 12) >> 4) * 4;
}

/* The longest IP packet that comes of the buffer: itself, or the segments that it is cut into. */
static __always_inline __u32 probe_longest(const struct __sk_buff *skb, const struct packet *p,
					   __u32 l4_bytes)
{
	if (!skb->gso_size)
		return p->bytes;
	return p->l4 + l4_bytes + skb->gso_size;
}

/* Fills in what outer.h reads; longest is compared with what the way to the real takes. */
static __always_inline enum probe_outcome probe_parse(struct __sk_buff *skb, struct packet *p,
						      __u32 *longest)
{
	void *data, *end, *ip, *l4;

	if (bpf_skb_pull_data(skb, skb->len < PROBE_HEADERS_MAX ? skb->len : PROBE_HEADERS_MAX))
		return PROBE_NO_ROOM;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_BYTES;
	p->l3 = ETH_BYTES;
	p->bytes = skb->len - ETH_BYTES;
	if (skb->protocol == bpf_htons(ETH_P_IP) && ip + IP4_BYTES <= end) {
		p->tos = LD8(ip + 1);
		p->protocol = LD8(ip + 9);
		p->src = LD32(ip + 12);
		p->l4 = (LD8(ip) & 15) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6) && ip + IP6_BYTES <= end) {
		p->is_v6 = 1;
		p->tos = bpf_ntohs(LD16(ip)) >> 4;
		p->protocol = LD8(ip + 6);
		p->src = LD32(ip + 20);
		p->l4 = IP6_BYTES;
	} else {
		return PROBE_NOT_IP;
	}
	l4 = ip + p->l4;
	p->ports = probe_ports(l4, end, p->protocol);
	*longest = probe_longest(skb, p, probe_l4_bytes(l4, end, p->protocol));
	return PROBE_WRAPPED;
}
