// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Encapsulate: room in front of the frame, then stores only. at is where the new frame's last 14
 * link bytes would start if there were no VLAN tags: the outer headers are written from there, and
 * tags are put back afterwards. Stores of eight bytes may overlap their neighbours.
 */
#pragma once

#define MAC_MASK 0xffffffffffffULL

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

/* The frame's start moves by bytes. What was known of the packet's place is void afterwards. */
static __always_inline void *grow(struct xdp_md *ctx, __u32 l3, __u32 bytes)
{
	void *data, *at;

	if (unlikely(bpf_xdp_adjust_head(ctx, -(int)bytes)))
		return 0;
	data = (void *)(long)ctx->data;
	at = data + packet_tag_bytes(l3);
	/* Follows from what was parsed; the verifier does not see that. */
	if (unlikely(at + ETH_BYTES + bytes > (void *)(long)ctx->data_end))
		return 0;
	return at;
}

/* What the link header in front of the inner packet says, saved across the growth. */
struct link_header {
	__u64 own_mac; /* the frame's destination; two more bytes above it */
	__u64 tags;
};

static __always_inline void restore_tags(struct xdp_md *ctx, const struct packet *p,
					 const struct real *real, const struct link_header *link)
{
	void *data = (void *)(long)ctx->data;

	if (data + ETH_BYTES + VLAN_TAGS_MAX * VLAN_TAG_BYTES > (void *)(long)ctx->data_end)
		return; /* never: the frame has grown by more than the tags */
	ST64(data, real->mac | link->own_mac << 48);
	ST32(data + 8, link->own_mac >> 16);
	ST32(data + 12, link->tags);
	if (p->l3 > ETH_BYTES + VLAN_TAG_BYTES)
		ST32(data + 16, link->tags >> 32);
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

static __always_inline enum reason encap_ipip4(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real, __u64 own_mac)
{
	void *at = grow(ctx, p->l3, 20);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ip4(at, real, own_mac, p->tos, p->bytes + 20,
		(entropy4(p) & 0xffff0000) | (__u32)real->src[0]);
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_ipip6(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real, __u64 own_mac)
{
	void *at = grow(ctx, p->l3, 40);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ip6(at, real, own_mac, p->tos, p->bytes, real->src[1] | (__u64)entropy6(p) << 32);
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_gue4(struct xdp_md *ctx, const struct packet *p,
					      const struct real *real, __u64 own_mac, __u64 inner)
{
	void *at = grow(ctx, p->l3, 28);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ip4(at, real, own_mac, p->tos, p->bytes + 28, (__u32)real->src[0]);
	put_udp(at + 34, real, entropy4(p) >> 16, p->bytes + 8);
	if (inner)
		ST16(at + 40, outer_checksum(at + 34, at + 26, 2, inner));
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_gue6(struct xdp_md *ctx, const struct packet *p,
					      const struct real *real, __u64 own_mac, __u64 inner)
{
	__u32 src_port = p->is_v6 ? entropy6(p) : (p->src >> 16) ^ (p->ports & 0xffff);
	void *at = grow(ctx, p->l3, 48);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ip6(at, real, own_mac, p->tos, p->bytes + 8, real->src[1]);
	put_udp(at + 54, real, src_port, p->bytes + 8);
	if (inner)
		ST16(at + 60, outer_checksum(at + 54, at + 22, 8, inner));
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_by_kind(struct xdp_md *ctx, const struct packet *p,
						 const struct real *real, __u64 own_mac)
{
	__u16 kind = real->kind;
	__u64 inner = 0;

	if (likely(kind == ENCAP_IPIP4))
		return encap_ipip4(ctx, p, real, own_mac);
	if (kind == ENCAP_IPIP6)
		return encap_ipip6(ctx, p, real, own_mac);
	if (kind == ENCAP_GUE4_SUM || kind == ENCAP_GUE6_SUM)
		inner = inner_sum(ctx, p->l3);
	if (kind == ENCAP_GUE4 || kind == ENCAP_GUE4_SUM)
		return encap_gue4(ctx, p, real, own_mac, inner);
	return encap_gue6(ctx, p, real, own_mac, inner);
}

static __always_inline enum reason encapsulate(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct link_header link = {};
	enum reason why;

	/* Follows from what was parsed; the verifier does not see that. */
	if (unlikely(data + ETH_BYTES + VLAN_TAGS_MAX * VLAN_TAG_BYTES > end))
		return REASON_NO_ROOM;
	link.own_mac = LD64(data);
	if (p->l3 != ETH_BYTES)
		link.tags = LD64(data + 12);
	why = encap_by_kind(ctx, p, real, link.own_mac);
	if (p->l3 != ETH_BYTES && why == REASON_FORWARDED)
		restore_tags(ctx, p, real, &link);
	return why;
}
