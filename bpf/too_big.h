// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Too big: the sender of a packet that does not fit in its outer headers on the way to the real is told
 * what fits, docs/packet-path.md section 8. Part of the slow path. The frame is cut to the quote, and
 * grows by the headers in front of it.
 */
#pragma once

#define TOO_BIG4_QUOTE 84
#define TOO_BIG6_QUOTE 248
#define TOO_BIG4_TYPE 3		/* with code 4: RFC 1191 */
#define TOO_BIG4_CODE 4
#define TOO_BIG6_TYPE 2		/* RFC 4443 section 3.2 */
#define TOO_BIG_TTL 64

static __always_inline void too_big_write4(void *ip, __u32 longest)
{
	void *icmp = ip + IP4_BYTES, *quote = icmp + ICMP_BYTES;

	ST32(ip, bpf_htonl(0x45000000 | (IP4_BYTES + ICMP_BYTES + TOO_BIG4_QUOTE)));
	ST32(ip + 4, 0);
	ST32(ip + 8, TOO_BIG_TTL | IPPROTO_ICMP << 8);
	ST32(ip + 12, LD32(quote + 16));
	ST32(ip + 16, LD32(quote + 12));
	ST16(ip + 10, ~sum_fold(sum_words(ip, IP4_BYTES / 4)));
	ST32(icmp, TOO_BIG4_TYPE | TOO_BIG4_CODE << 8);
	ST32(icmp + 4, (__u32)bpf_htons(longest) << 16);
	ST16(icmp + 2, ~sum_fold(sum_words(icmp, (ICMP_BYTES + TOO_BIG4_QUOTE) / 4)));
}

static __always_inline void too_big_write6(void *ip, __u32 longest)
{
	void *icmp = ip + IP6_BYTES, *quote = icmp + ICMP_BYTES;
	__u64 pseudo = bpf_htonl(ICMP_BYTES + TOO_BIG6_QUOTE) + (__u64)bpf_htonl(IPPROTO_ICMPV6);

	ST32(ip, bpf_htonl(0x60000000));
	ST32(ip + 4, bpf_htons(ICMP_BYTES + TOO_BIG6_QUOTE) | IPPROTO_ICMPV6 << 16 | TOO_BIG_TTL << 24);
	ST64(ip + 8, LD64(quote + 24));
	ST64(ip + 16, LD64(quote + 32));
	ST64(ip + 24, LD64(quote + 8));
	ST64(ip + 32, LD64(quote + 16));
	ST32(icmp, TOO_BIG6_TYPE);
	ST32(icmp + 4, bpf_htonl(longest));
	pseudo += sum_words(ip + 8, 8) + sum_words(icmp, (ICMP_BYTES + TOO_BIG6_QUOTE) / 4);
	ST16(icmp + 2, ~sum_fold(pseudo));
}

/*
 * Whether the sender may be told of the packet. A record that changes this moment may say any length, of
 * which 0, and one that the packet has, must not be told.
 */
static __always_inline int too_big_tellable(const struct packet *p, __u32 longest)
{
	if (p->icmp_error || p->fragment || !longest || p->bytes <= longest)
		return 0;
	return p->bytes >= (p->is_v6 ? TOO_BIG6_QUOTE : TOO_BIG4_QUOTE);
}

/* Cuts the frame to the quote, and makes room for headers in front of it; its start. */
static __always_inline void *too_big_frame(struct xdp_md *ctx, __u32 l3, __u32 headers, __u32 quote)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 bytes = end - data;

	/* Pointers are subtracted as 64-bit words only. */
	asm volatile("" : "+r"(bytes));
	if (bpf_xdp_adjust_head(ctx, -(int)headers))
		return 0;
	if (bpf_xdp_adjust_tail(ctx, (int)(l3 + quote) - (int)bytes))
		return 0;
	data = (void *)(long)ctx->data;
	if (data + LINK_BYTES_MAX > (void *)(long)ctx->data_end)
		return 0; /* never: the quote is longer */
	return data;
}

/* longest: bytes of the longest packet that fits. */
static __always_inline enum reason too_big(struct xdp_md *ctx, const struct packet *p, __u32 longest)
{
	__u32 quote = p->is_v6 ? TOO_BIG6_QUOTE : TOO_BIG4_QUOTE;
	__u32 headers = (p->is_v6 ? IP6_BYTES : IP4_BYTES) + ICMP_BYTES;
	__u32 l3 = ETH_BYTES + packet_tag_bytes(p->l3);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip;
	struct link_header link;

	if (!too_big_tellable(p, longest) || !answer_to_host(ctx, p))
		return REASON_TOO_BIG;
	if (data + LINK_BYTES_MAX > end || !answer_admits())
		return REASON_TOO_BIG;
	link_read(data, &link);
	link_swap_macs(&link);
	data = too_big_frame(ctx, l3, headers, quote);
	if (!data)
		return REASON_NO_ROOM;
	end = (void *)(long)ctx->data_end;
	link_write(data, l3, &link);
	link_write_type(data, l3, p->is_v6);
	ip = data + l3;
	if (p->is_v6) {
		if (ip + IP6_BYTES + ICMP_BYTES + TOO_BIG6_QUOTE > end)
			return REASON_NO_ROOM; /* never: that is its length */
		too_big_write6(ip, longest);
	} else {
		if (ip + IP4_BYTES + ICMP_BYTES + TOO_BIG4_QUOTE > end)
			return REASON_NO_ROOM; /* never: that is its length */
		too_big_write4(ip, longest);
	}
	return REASON_TOO_BIG_TOLD;
}
