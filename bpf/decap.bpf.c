// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The servers' side of the tunnel: takes the outer header of IPIP (RFC 2003, 2473, 4213) and of GUE
 * variant 1 (IP directly in UDP, draft-ietf-intarea-gue) off frames to a tunnel address, and hands
 * the inner packet to the stack in the same Ethernet frame. Everything else passes untouched.
 *
 * A frame goes through the steps of tunnel_open() in order. A step returns DECAP_DECAPSULATED to
 * go on, or the reason to end; frame_count() is the only exit. The cheap tests come first, since
 * most frames of a server that is not under load are not tunnelled.
 *
 * Not verified, because the stack verifies the inner packet's own: the outer IPv4 header checksum
 * and the outer UDP checksum. What lies behind the inner packet's length stays in the frame; the
 * stack cuts it.
 *
 * Loading needs CAP_PERFMON: without it the verifier refuses offsets into a packet that are not
 * constant (sanitize_ptr_alu() in kernel/bpf/verifier.c), and IPv4 options make them so.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "decap_types.h"

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

/* Finds the outer IP header, behind at most two VLAN tags. */
static __always_inline enum decap_reason ethernet_parse(struct frame *f)
{
	struct ethhdr *eth = f->data;
	struct vlan_tag *tag = (void *)(eth + 1);

	if ((void *)(eth + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	f->ethertype = eth->h_proto;
	/* From here on a "tag" is the control word and the EtherType behind it. */
	if (is_vlan(f->ethertype)) {
		if ((void *)(tag + 1) > f->end)
			return DECAP_OUTER_TRUNCATED;
		f->ethertype = tag->control;
		f->tags_len++;
		tag++;
	}
	if (f->tags_len && is_vlan(f->ethertype)) {
		if ((void *)(tag + 1) > f->end)
			return DECAP_OUTER_TRUNCATED;
		f->ethertype = tag->control;
		f->tags_len++;
		tag++;
	}
	f->outer = tag;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer4_parse(struct frame *f)
{
	struct iphdr *ip = f->outer;

	if ((void *)(ip + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (ip->version != 4 || ip->ihl < 5)
		return DECAP_OUTER_MALFORMED;
	f->outer_hdr_bytes = ip->ihl * 4;
	f->outer_bytes = bpf_ntohs(ip->tot_len);
	f->outer_ecn = ip->tos & ECN_MASK;
	f->next = ip->protocol;
	f->fragment = (ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK)) != 0;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer6_parse(struct frame *f)
{
	struct ipv6hdr *ip = f->outer;

	if ((void *)(ip + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (ip->version != 6)
		return DECAP_OUTER_MALFORMED;
	f->outer_hdr_bytes = sizeof(*ip);
	f->outer_bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	f->outer_ecn = ipv6_ecn(ip);
	f->next = ip->nexthdr;
	return DECAP_DECAPSULATED;
}

/* Reads what the outer IP header says. Its lengths are judged by outer_lengths_check(). */
static __always_inline enum decap_reason outer_parse(struct frame *f)
{
	if (f->ethertype == bpf_htons(ETH_P_IP))
		return outer4_parse(f);
	if (f->ethertype == bpf_htons(ETH_P_IPV6))
		return outer6_parse(f);
	return DECAP_NOT_IP;
}

/* Tells tunnels by the protocol. A fragment is not opened: reassembly is the stack's. */
static __always_inline enum decap_reason protocol_check(struct frame *f)
{
	int outer6 = f->ethertype == bpf_htons(ETH_P_IPV6);

	if (f->next == IPPROTO_IPIP)
		f->inner_version = 4;
	else if (f->next == IPPROTO_IPV6)
		f->inner_version = 6;
	else if (f->next == IPPROTO_UDP)
		f->gue = 1;
	else if (outer6 && f->next == IPPROTO_FRAGMENT)
		return DECAP_OUTER_FRAGMENT;
	else if (outer6 && (f->next == IPPROTO_HOPOPTS || f->next == IPPROTO_ROUTING ||
			    f->next == IPPROTO_DSTOPTS || f->next == IPPROTO_AH))
		return DECAP_OUTER_EXTENSION;
	else
		return DECAP_OTHER_PROTOCOL;
	return f->fragment ? DECAP_OUTER_FRAGMENT : DECAP_DECAPSULATED;
}

/* Steps over the outer headers: sets removed_bytes and inner. UDP is a tunnel by its port. */
static __always_inline enum decap_reason gue_check(struct frame *f)
{
	struct udphdr *udp = f->outer + f->outer_hdr_bytes;

	f->removed_bytes = f->outer_hdr_bytes;
	f->inner = udp;
	if (!f->gue)
		return DECAP_DECAPSULATED;
	if ((void *)(udp + 1) > f->end)
		return DECAP_OUTER_TRUNCATED;
	if (udp->dest != bpf_htons(setting_gue_port))
		return DECAP_OTHER_PORT;
	f->payload_bytes = bpf_ntohs(udp->len);
	f->removed_bytes += sizeof(*udp);
	f->inner = udp + 1;
	return DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason outer_addr_check(const struct frame *f)
{
	struct decap_addr dst;

	dst_get(&dst, f->outer, f->ethertype == bpf_htons(ETH_P_IPV6));
	return bpf_map_lookup_elem(&tunnel_addrs, &dst) ? DECAP_DECAPSULATED : DECAP_OTHER_ADDRESS;
}

/*
 * The outer lengths must fit the frame and each other: sets payload_bytes. From this step on the
 * frame is a tunnelled one for us, and an error drops it.
 */
static __always_inline enum decap_reason outer_lengths_check(struct frame *f)
{
	__u32 udp_bytes = f->payload_bytes;

	if (f->outer_bytes < f->removed_bytes || f->outer + f->outer_bytes > f->end)
		return DECAP_OUTER_LENGTH;
	f->payload_bytes = f->outer_bytes - f->removed_bytes;
	if (!f->gue)
		return DECAP_DECAPSULATED;
	/* A zero length is for jumbograms only (RFC 2675), which no outer header here can be. */
	if (udp_bytes < sizeof(struct udphdr) ||
	    udp_bytes - sizeof(struct udphdr) > f->payload_bytes)
		return DECAP_OUTER_LENGTH;
	f->payload_bytes = udp_bytes - sizeof(struct udphdr);
	return DECAP_DECAPSULATED;
}

/* The inner version from its first four bits, which in GUE also tell variant 1 from others. */
static __always_inline enum decap_reason inner_version_check(struct frame *f)
{
	__u8 *first = f->inner;
	__u8 version;

	if (f->payload_bytes < 1 || (void *)(first + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	version = *first >> 4;
	if (f->gue) {
		f->inner_version = version;
		return version == 4 || version == 6 ? DECAP_DECAPSULATED : DECAP_INNER_VERSION;
	}
	return version == f->inner_version ? DECAP_DECAPSULATED : DECAP_INNER_VERSION;
}

static __always_inline enum decap_reason inner4_parse(struct frame *f)
{
	struct iphdr *ip = f->inner;
	__u32 hdr_bytes;

	if (f->payload_bytes < sizeof(*ip) || (void *)(ip + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	hdr_bytes = ip->ihl * 4;
	f->inner_bytes = bpf_ntohs(ip->tot_len);
	f->inner_ecn = ip->tos & ECN_MASK;
	if (hdr_bytes < sizeof(*ip) || f->inner_bytes < hdr_bytes)
		return DECAP_INNER_MALFORMED;
	return f->payload_bytes < hdr_bytes ? DECAP_INNER_TRUNCATED : DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason inner6_parse(struct frame *f)
{
	struct ipv6hdr *ip = f->inner;

	if (f->payload_bytes < sizeof(*ip) || (void *)(ip + 1) > f->end)
		return DECAP_INNER_TRUNCATED;
	f->inner_bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	f->inner_ecn = ipv6_ecn(ip);
	return DECAP_DECAPSULATED;
}

/* Checks the inner header as far as the tunnel is concerned; the rest is for the stack. */
static __always_inline enum decap_reason inner_parse(struct frame *f)
{
	enum decap_reason reason;

	reason = inner_version_check(f);
	if (reason)
		return reason;
	reason = f->inner_version == 4 ? inner4_parse(f) : inner6_parse(f);
	if (reason)
		return reason;
	return f->inner_bytes > f->payload_bytes ? DECAP_INNER_LENGTH : DECAP_DECAPSULATED;
}

static __always_inline enum decap_reason vip_check(const struct frame *f)
{
	struct decap_addr dst;

	if (!setting_vips_checked)
		return DECAP_DECAPSULATED;
	dst_get(&dst, f->inner, f->inner_version == 6);
	return bpf_map_lookup_elem(&vip_addrs, &dst) ? DECAP_DECAPSULATED : DECAP_NOT_VIP;
}

/* RFC 1624, equation 3, for one word. The sum is the same in either byte order. */
static __always_inline __u16 checksum_update(__u16 check, __u16 from, __u16 to)
{
	__u32 sum = (__u16)~check + (__u16)~from + to;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Writes the codepoint into the inner header. Its bounds were checked by inner_parse(). */
static __always_inline void inner_ecn_set(struct frame *f, __u8 ecn)
{
	struct iphdr *ip = f->inner;
	__u16 *first = f->inner;
	__u8 *bytes = f->inner;
	__u16 before = *first;

	if (f->inner_version == 4) {
		bytes[1] = (bytes[1] & ~ECN_MASK) | ecn;
		ip->check = checksum_update(ip->check, before, *first);
		return;
	}
	bytes[1] = (bytes[1] & ~(ECN_MASK << ECN_IPV6_SHIFT)) | ecn << ECN_IPV6_SHIFT;
}

/* RFC 6040, section 4.2: a mark that the outer header got on the way is kept. */
static __always_inline enum decap_reason ecn_merge(struct frame *f)
{
	if (f->outer_ecn == ECN_CE) {
		if (f->inner_ecn == ECN_NOT_ECT)
			return DECAP_ECN;
		if (f->inner_ecn != ECN_CE)
			inner_ecn_set(f, ECN_CE);
	} else if (f->outer_ecn == ECN_ECT_1 && f->inner_ecn == ECN_ECT_0) {
		inner_ecn_set(f, ECN_ECT_1);
	}
	return DECAP_DECAPSULATED;
}

/*
 * Moves the Ethernet header and its tags to the place in front of the inner packet, and gives them
 * the inner EtherType. The two places overlap (22 bytes with tags, 20 removed), so all is read
 * before it is written.
 */
static __always_inline enum decap_reason ethernet_move(struct frame *f)
{
	struct ethernet_words *from = f->data;
	struct ethernet_words *to = f->data + f->removed_bytes;
	__u16 ethertype = f->inner_version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	__u32 a0, a1, a2, tag0, tag1;

	/* Cannot be: the inner header behind it is at least 20 bytes. For the verifier. */
	if ((void *)(from + 1) > f->end || (void *)(to + 1) > f->end)
		return DECAP_NOT_MOVED;
	a0 = from->addresses[0];
	a1 = from->addresses[1];
	a2 = from->addresses[2];
	tag0 = from->tags[0];
	tag1 = from->tags[1];
	to->addresses[0] = a0;
	to->addresses[1] = a1;
	to->addresses[2] = a2;
	if (f->tags_len == 0) {
		*(__be16 *)&to->tags[0] = ethertype;
		return DECAP_DECAPSULATED;
	}
	to->tags[0] = tag0;
	if (f->tags_len == 1) {
		*(__be16 *)&to->tags[1] = ethertype;
		return DECAP_DECAPSULATED;
	}
	to->tags[1] = tag1;
	to->protocol = ethertype;
	return DECAP_DECAPSULATED;
}

/* The checks, up to the last that leaves the frame as it is. */
static __always_inline enum decap_reason tunnel_parse(struct frame *f)
{
	enum decap_reason reason;

	reason = ethernet_parse(f);
	if (reason)
		return reason;
	reason = outer_parse(f);
	if (reason)
		return reason;
	reason = protocol_check(f);
	if (reason)
		return reason;
	reason = gue_check(f);
	if (reason)
		return reason;
	reason = outer_addr_check(f);
	if (reason)
		return reason;
	reason = outer_lengths_check(f);
	if (reason)
		return reason;
	reason = inner_parse(f);
	if (reason)
		return reason;
	return vip_check(f);
}

/* The whole way of a frame. Once ecn_merge() has begun, it is decapsulated or dropped. */
static __always_inline enum decap_reason tunnel_open(struct xdp_md *ctx, struct frame *f)
{
	enum decap_reason reason;

	reason = tunnel_parse(f);
	if (reason)
		return reason;
	reason = ecn_merge(f);
	if (reason)
		return reason;
	reason = ethernet_move(f);
	if (reason)
		return reason;
	if (bpf_xdp_adjust_head(ctx, f->removed_bytes))
		return DECAP_NOT_MOVED;
	return DECAP_DECAPSULATED;
}

static __always_inline void kind_count(const struct frame *f)
{
	__u32 kind = DECAP_IPIP_4IN4;
	struct decap_count *count;

	if (f->inner_version == 6)
		kind += DECAP_IPIP_6IN4;
	if (f->ethertype == bpf_htons(ETH_P_IPV6))
		kind += DECAP_IPIP_4IN6;
	if (f->gue)
		kind += DECAP_GUE_4IN4;
	count = bpf_map_lookup_elem(&kind_counts, &kind);
	/* Cannot be NULL: kind is below the map's size. For the verifier. */
	if (!count)
		return;
	count->packets++;
	count->bytes += f->inner_bytes;
}

/* The only exit: counts the frame for its reason, which gives the verdict. */
static __always_inline int frame_count(const struct frame *f, enum decap_reason reason)
{
	__u32 key = reason;
	__u64 *packets = bpf_map_lookup_elem(&reason_packets, &key);

	/* Cannot be NULL: reasons are below the map's size. For the verifier. */
	if (packets)
		(*packets)++;
	if (reason == DECAP_DECAPSULATED)
		kind_count(f);
	return reason >= DECAP_OUTER_LENGTH ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int remora_decap(struct xdp_md *ctx)
{
	struct frame f = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	return frame_count(&f, tunnel_open(ctx, &f));
}

char _license[] SEC("license") = "Dual BSD/GPL";
