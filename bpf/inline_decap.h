// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Inline decapsulation of IPIP and GUE, docs/packet-path.md section 9: a packet that ended for a
 * reason with which its outer headers have nothing to say. Part of the slow path.
 */
#pragma once

#define PROTOCOL_IP4_IN_IP 4	/* RFC 2003 */
#define PROTOCOL_IP6_IN_IP 41	/* RFC 2473, RFC 4213 */

/* Bytes of outer headers behind the IP header: 0 for IPIP, 8 for GUE; negative if it is neither. */
static __always_inline int decap_behind_ip(const struct packet *p, enum reason why)
{
	if (why == REASON_OTHER_PROTOCOL &&
	    (p->protocol == PROTOCOL_IP4_IN_IP || p->protocol == PROTOCOL_IP6_IN_IP))
		return 0;
	if (why == REASON_NOT_VIP && p->protocol == IPPROTO_UDP && !p->icmp_error && !p->fragment &&
	    load_settings.decap_gue_port && p->ports >> 16 == load_settings.decap_gue_port)
		return UDP_BYTES;
	return -1;
}

static __always_inline enum reason decap_age4(void *ip)
{
	__u16 before = LD16(ip + 8);

	if ((__u8)before < 2)
		return REASON_TTL_EXPIRED;
	ST8(ip + 8, (__u8)before - 1);
	ST16(ip + 10, checksum_adjust(LD16(ip + 10), before, LD16(ip + 8)));
	return REASON_FORWARDED;
}

static __always_inline enum reason decap_age6(void *ip)
{
	if (LD8(ip + 7) < 2)
		return REASON_TTL_EXPIRED;
	ST8(ip + 7, LD8(ip + 7) - 1);
	return REASON_FORWARDED;
}

/* The inner header: whole, of the right version, with a hop left, which it loses. */
static __always_inline enum reason decap_inner(void *ip, void *end, __u32 payload, int is_v6)
{
	if (payload < (is_v6 ? IP6_BYTES : IP4_BYTES))
		return REASON_TRUNCATED;
	/* The first condition follows from the lengths; the verifier does not see that. */
	if (is_v6) {
		if (ip + IP6_BYTES > end)
			return REASON_TRUNCATED;
		return LD8(ip) >> 4 == 6 ? decap_age6(ip) : REASON_MALFORMED;
	}
	if (ip + IP4_BYTES > end)
		return REASON_TRUNCATED;
	return LD8(ip) >> 4 == 4 ? decap_age4(ip) : REASON_MALFORMED;
}

/* The link header moves to the inner packet, which starts outer bytes behind the IP header. */
static __always_inline enum reason decap_shrink(struct xdp_md *ctx, __u32 l3, __u32 outer, int is_v6,
						int back)
{
	void *data = (void *)(long)ctx->data;
	struct link_header link;

	if (data + LINK_BYTES_MAX > (void *)(long)ctx->data_end)
		return REASON_NO_ROOM; /* never: there is a whole IP header behind the link header */
	link_read(data, &link);
	if (back)
		link_swap_macs(&link);
	if (bpf_xdp_adjust_head(ctx, (int)outer))
		return REASON_NO_ROOM;
	data = (void *)(long)ctx->data;
	if (data + LINK_BYTES_MAX > (void *)(long)ctx->data_end)
		return REASON_NO_ROOM; /* never: as above */
	link_write(data, l3, &link);
	link_write_type(data, l3, is_v6);
	return REASON_FORWARDED;
}

/* Whether the inner packet is IPv6, into is_v6; of a packet that is GUE if behind is not 0. */
static __always_inline enum reason decap_family(const struct packet *p, void *inner, void *end,
						__u32 payload, int behind, int *is_v6)
{
	*is_v6 = p->protocol == PROTOCOL_IP6_IN_IP;
	if (!behind)
		return REASON_FORWARDED;
	if (!payload || inner + 1 > end)
		return REASON_TRUNCATED;
	*is_v6 = LD8(inner) >> 4 == 6;
	return *is_v6 || LD8(inner) >> 4 == 4 ? REASON_FORWARDED : REASON_MALFORMED;
}

/*
 * Takes the outer headers off. Returns why the packet ends now; why itself, if there is nothing to take
 * off; REASON_UNDECIDED if the frame begins anew. A function of its own, for the stack that it takes.
 */
__attribute__((noinline)) int decapsulate(struct xdp_md *ctx, const struct packet *p, __u32 why)
{
	enum decap_action action;
	__u32 outer, payload;
	int behind, is_v6;
	void *inner, *end;

	if (!ctx || !p)
		return why; /* never: the verifier wants arguments to be checked */
	behind = decap_behind_ip(p, why);
	if (behind < 0)
		return why;
	action = decap_dst_get(p->dst, p->is_v6);
	if (action == DECAP_NONE)
		return why;
	outer = (p->l4 & 0x3fff) + behind;
	payload = p->bytes - outer;
	inner = (void *)(long)ctx->data + (p->l3 & 31) + outer;
	end = (void *)(long)ctx->data_end;
	why = decap_family(p, inner, end, payload, behind, &is_v6);
	if (!why)
		why = decap_inner(inner, end, payload, is_v6);
	if (!why)
		why = decap_shrink(ctx, p->l3, outer, is_v6, action == DECAP_EGRESS);
	if (why)
		return why;
	count_decapsulated(is_v6);
	if (action == DECAP_BALANCE)
		return REASON_UNDECIDED;
	return action == DECAP_HOST ? REASON_DECAPSULATED : REASON_DECAP_SENT;
}
