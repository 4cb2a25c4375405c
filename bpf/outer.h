// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The outer headers, written in front of an inner packet: for clients' packets by encap.h, for health
 * checks by probe.bpf.c. at is where the 14 link bytes start. Stores of eight bytes may overlap their
 * neighbours.
 */
#pragma once

/* Destination and source address, EtherType, and the first two bytes of the outer IP header. */
static __always_inline void put_link(void *at, const struct real *real, __u64 own_mac, __u32 type_and_ip)
{
	ST64(at, real->mac | own_mac << 48);
	ST64(at + 8, (own_mac >> 16 & 0xffffffff) | (__u64)type_and_ip << 32);
}

static __always_inline void put_ip4(void *at, const struct real *real, __u64 own_mac, __u8 tos,
				    __u32 total, __u32 src)
{
	__u32 length = bpf_htons(total);
	/* The prepared sum holds all but these; the source's first half is constant. */
	__u32 sum = real->sum + ((__u32)tos << 8) + length + (src >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	put_link(at, real, own_mac, bpf_htons(ETH_P_IP) | 0x45 << 16 | (__u32)tos << 24);
	ST64(at + 16, real->fixed | length);
	ST16(at + 24, ~sum);
	ST32(at + 26, src);
	ST32(at + 30, (__u32)real->dst[0]);
}

static __always_inline void put_ip6(void *at, const struct real *real, __u64 own_mac, __u8 tos,
				    __u32 payload, __u64 src1)
{
	__u32 version_tos = bpf_htons(0x6000 | (__u32)tos << 4);

	put_link(at, real, own_mac, bpf_htons(ETH_P_IPV6) | version_tos << 16);
	ST64(at + 16, real->fixed | (__u64)bpf_htons(payload) << 16);
	ST64(at + 22, real->src[0]);
	ST64(at + 30, src1);
	ST64(at + 38, real->dst[0]);
	ST64(at + 46, real->dst[1]);
}

static __always_inline void put_udp(void *udp, const struct real *real, __u32 src_port, __u32 length)
{
	ST32(udp, (src_port & 0xffff) | (__u32)real->gue_port << 16);
	ST32(udp + 4, bpf_htons(length)); /* checksum 0: RFC 768, RFC 6935 */
}

/* For an IPv4 and an IPv6 outer header: the low source bytes, stirred with the source port. */
static __always_inline __u32 entropy4(const struct packet *p)
{
	return p->src ^ (__u32)bpf_htons(p->ports & 0xffff) << 16;
}

static __always_inline __u32 entropy6(const struct packet *p)
{
	return p->src ^ (p->ports & 0xffff);
}

static __always_inline void put_ipip4(void *at, const struct packet *p, const struct real *real,
				      __u64 own_mac)
{
	put_ip4(at, real, own_mac, p->tos, p->bytes + 20,
		(entropy4(p) & 0xffff0000) | (__u32)real->src[0]);
}

static __always_inline void put_ipip6(void *at, const struct packet *p, const struct real *real,
				      __u64 own_mac)
{
	put_ip6(at, real, own_mac, p->tos, p->bytes, real->src[1] | (__u64)entropy6(p) << 32);
}

static __always_inline void put_gue4(void *at, const struct packet *p, const struct real *real,
				     __u64 own_mac)
{
	put_ip4(at, real, own_mac, p->tos, p->bytes + 28, (__u32)real->src[0]);
	put_udp(at + 34, real, entropy4(p) >> 16, p->bytes + 8);
}

static __always_inline void put_gue6(void *at, const struct packet *p, const struct real *real,
				     __u64 own_mac)
{
	__u32 src_port = p->is_v6 ? entropy6(p) : (p->src >> 16) ^ (p->ports & 0xffff);

	put_ip6(at, real, own_mac, p->tos, p->bytes + 8, real->src[1]);
	put_udp(at + 54, real, src_port, p->bytes + 8);
}
