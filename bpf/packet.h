// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What the packet says, in the few words that the steps after parsing need. */
#pragma once

#define ETH_BYTES 14
#define IP4_BYTES 20
#define IP6_BYTES 40
#define TCP_BYTES 20
#define UDP_BYTES 8

struct packet {
	__u64 dst[2]; /* destination; IPv4 in the low half of dst[0] */
	__u32 src;    /* IPv4 source, or the last word of the IPv6 source; memory order */
	__u32 fold;   /* what is hashed for the source */
	__u32 ports;  /* source and destination port; memory order */
	__u32 bytes;  /* IP packet with its header, without a trailer */
	__u32 l3;     /* where the IP header starts in the frame: 14, 18 or 22 */
	__u16 l4;     /* where the payload starts in the IP packet */
	__u16 client; /* of an ICMP error: where the client's address is in the IP packet */
	__u8 tos;     /* or traffic class */
	__u8 protocol;
	__u8 is_v6;
	__u8 icmp_error; /* about the flow that the other fields describe */
	__u8 fragment;	 /* without ports */
	__u8 by_client;	 /* TCP flags, and what is behind them, do not count */
};
_Static_assert(sizeof(struct packet) == 48, "no hidden padding");

#define VLAN_TAGS_MAX 2
#define VLAN_TAG_BYTES 4

/* Bytes of VLAN tags: 0, 4 or 8. The mask changes nothing; it shows the verifier a bound. */
static __always_inline __u32 packet_tag_bytes(__u32 l3)
{
	return (l3 - ETH_BYTES) & 15;
}

static __always_inline int is_tcp_or_udp(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}
