// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the steps of decapsulation share: settings, tables, and one frame on its way through them.
 */
#pragma once

/* Of the IPv4 flags and fragment offset: the more bit and the offset (RFC 791, section 3.1). */
#define IPV4_FRAGMENT_MASK 0x3fff

/* ECN codepoints (RFC 3168, section 5). */
#define ECN_NOT_ECT 0
#define ECN_ECT_1 1
#define ECN_ECT_0 2
#define ECN_CE 3
#define ECN_MASK 3
/* The codepoint within the second byte of an IPv6 header. */
#define ECN_IPV6_SHIFT 4

/* A tag behind the MAC addresses or another tag (IEEE 802.1Q). */
struct vlan_tag {
	__be16 protocol;
	__be16 control;
};

/* What is copied when the Ethernet header moves, as words: two MAC addresses, at most two tags. */
struct ethernet_words {
	__u32 addresses[3];
	__u32 tags[2];
	__be16 protocol;
};

/* Settings, constant before the program is loaded. Host order. */
const volatile __u16 setting_gue_port = 6080;
/* Whether the inner destination must be in vip_addrs. */
const volatile __u8 setting_vips_checked = 0;

/* The outer destinations that are ours. The loader sets max_entries; values mean nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct decap_addr);
	__type(value, __u8);
} tunnel_addrs SEC(".maps");

/* The inner destinations that are ours, if setting_vips_checked. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct decap_addr);
	__type(value, __u8);
} vip_addrs SEC(".maps");

/* Packets by enum decap_reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_REASON_LEN);
	__type(key, __u32);
	__type(value, __u64);
} reason_packets SEC(".maps");

/* Packets and bytes by enum decap_kind. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_KIND_LEN);
	__type(key, __u32);
	__type(value, struct decap_count);
} kind_counts SEC(".maps");

/* One frame on its way through the steps. Lengths in bytes. */
struct frame {
	void *data;
	void *end;
	void *outer;		 /* the outer IP header */
	void *inner;		 /* the inner IP header */
	__u32 tags_len;		 /* VLAN tags in front of outer, 0 to 2 */
	__u32 outer_hdr_bytes;	 /* outer IP header, with options */
	__u32 outer_bytes;	 /* outer IP packet, as its header says */
	__u32 removed_bytes;	 /* outer headers: what inner lies behind outer */
	__u32 payload_bytes;	 /* what the outer headers promise from inner on */
	__u32 inner_bytes;	 /* inner IP packet, as its header says */
	__be16 ethertype;	 /* of the outer family */
	__u8 next;		 /* protocol that the outer IP header names */
	__u8 inner_version;	 /* that the tunnel demands or, in GUE, the packet says: 4 or 6 */
	__u8 outer_ecn;
	__u8 inner_ecn;
	__u8 fragment;
	__u8 gue;
};

/* The key of an IP header's destination address. The header's bounds were checked. */
static __always_inline void dst_get(struct decap_addr *dst, const void *header, int is_v6)
{
	const struct iphdr *ip4 = header;
	const struct ipv6hdr *ip6 = header;

	if (!is_v6) {
		dst->words[0] = 0;
		dst->words[1] = 0;
		dst->words[2] = bpf_htonl(0xffff);
		dst->words[3] = ip4->daddr;
		return;
	}
	dst->words[0] = ip6->daddr.s6_addr32[0];
	dst->words[1] = ip6->daddr.s6_addr32[1];
	dst->words[2] = ip6->daddr.s6_addr32[2];
	dst->words[3] = ip6->daddr.s6_addr32[3];
}

static __always_inline __u8 ipv6_ecn(const struct ipv6hdr *ip)
{
	return ((const __u8 *)ip)[1] >> ECN_IPV6_SHIFT & ECN_MASK;
}

static __always_inline int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}
