// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Encapsulate: room in front of the frame, then stores only (outer.h), from at on, which is where the
 * new frame's last 14 link bytes would start if there were no VLAN tags; tags are put back afterwards.
 */
#pragma once

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

/* own_mac is the frame's destination, and two more bytes above it. */
static __always_inline void restore_tags(struct xdp_md *ctx, const struct packet *p,
					 const struct real *real, __u64 own_mac, __u64 tags)
{
	struct link_header link = {
		.macs = real->mac | own_mac << 48, .macs_rest = own_mac >> 16, .tags = tags,
	};
	void *data = (void *)(long)ctx->data;

	if (data + LINK_BYTES_MAX > (void *)(long)ctx->data_end)
		return; /* never: the frame has grown by more than the tags */
	link_write(data, p->l3, &link);
}

static __always_inline enum reason encap_ipip4(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real, __u64 own_mac)
{
	void *at = grow(ctx, p->l3, 20);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ipip4(at, p, real, own_mac);
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_ipip6(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real, __u64 own_mac)
{
	void *at = grow(ctx, p->l3, 40);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_ipip6(at, p, real, own_mac);
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_gue4(struct xdp_md *ctx, const struct packet *p,
					      const struct real *real, __u64 own_mac, __u64 inner)
{
	void *at = grow(ctx, p->l3, 28);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_gue4(at, p, real, own_mac);
	if (inner)
		ST16(at + 40, outer_checksum(at + 34, at + 26, 2, inner));
	return REASON_FORWARDED;
}

static __always_inline enum reason encap_gue6(struct xdp_md *ctx, const struct packet *p,
					      const struct real *real, __u64 own_mac, __u64 inner)
{
	void *at = grow(ctx, p->l3, 48);

	if (unlikely(!at))
		return REASON_NO_ROOM;
	put_gue6(at, p, real, own_mac);
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
	/* A fragment is a part of what its checksum is about. */
	if ((kind == ENCAP_GUE4_SUM || kind == ENCAP_GUE6_SUM) && !p->fragment)
		inner = inner_sum(ctx, p->l3);
	if (kind == ENCAP_GUE4 || kind == ENCAP_GUE4_SUM)
		return encap_gue4(ctx, p, real, own_mac, inner);
	return encap_gue6(ctx, p, real, own_mac, inner);
}

static __always_inline enum reason encapsulate(struct xdp_md *ctx, const struct packet *p,
					       const struct real *real)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 own_mac, tags = 0;
	enum reason why;

	/* Follows from what was parsed; the verifier does not see that. */
	if (unlikely(data + LINK_BYTES_MAX > end))
		return REASON_NO_ROOM;
	own_mac = LD64(data);
	if (p->l3 != ETH_BYTES)
		tags = LD64(data + 12);
	why = encap_by_kind(ctx, p, real, own_mac);
	if (p->l3 != ETH_BYTES && why == REASON_FORWARDED)
		restore_tags(ctx, p, real, own_mac, tags);
	return why;
}
