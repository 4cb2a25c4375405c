// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * GUE's outer UDP checksum without reading the payload: a correct inner segment and its pseudo
 * header sum to 0xffff, so the segment's part of the sum is the complement of its pseudo header's.
 * Katran computes it so; docs/packet-path.md section 6.
 */
#pragma once

#define CHECKSUM_START 0xffff	/* keeps the folded sum from being 0 */

/* A 32-bit word is, for a one's-complement sum, its two 16-bit words added. */
static __always_inline __u64 sum_words(void *p, int words)
{
	__u64 sum = 0;

#pragma clang loop unroll(full)
	for (int i = 0; i < words; i++)
		sum += LD32(p + 4 * i);
	return sum;
}

static __always_inline __u64 sum_words_not(void *p, int words)
{
	__u64 sum = 0;

#pragma clang loop unroll(full)
	for (int i = 0; i < words; i++)
		sum += (__u32)~LD32(p + 4 * i);
	return sum;
}

static __always_inline __u64 inner4_sum(void *ip, void *end)
{
	__u8 protocol = LD8(ip + 9);
	__u64 sum = CHECKSUM_START + sum_words(ip, 5);

	if (LD8(ip) != 0x45 || ip + IP4_BYTES + UDP_BYTES > end)
		return 0;
	if (protocol == IPPROTO_ICMP)
		return sum; /* its checksum covers no pseudo header */
	if (protocol == IPPROTO_UDP && LD16(ip + IP4_BYTES + 6) == 0)
		return 0;
	sum += sum_words_not(ip + 12, 2);
	sum += (__u32)~bpf_htonl(bpf_ntohs(LD16(ip + 2)) - IP4_BYTES);
	return sum + (__u32)~bpf_htonl(protocol);
}

static __always_inline __u64 inner6_sum(void *ip, void *end)
{
	__u8 protocol = LD8(ip + 6);
	__u64 sum = CHECKSUM_START + sum_words(ip, 10);

	if (ip + IP6_BYTES + UDP_BYTES > end)
		return 0;
	if (!is_tcp_or_udp(protocol) && protocol != IPPROTO_ICMPV6)
		return 0;
	if (protocol == IPPROTO_UDP && LD16(ip + IP6_BYTES + 6) == 0)
		return 0;
	sum += sum_words_not(ip + 8, 8);
	sum += (__u32)~bpf_htonl(bpf_ntohs(LD16(ip + 4)));
	return sum + (__u32)~bpf_htonl(protocol);
}

/*
 * The inner packet's part of the outer sum, before the frame grows; 0 where the shortcut would be
 * wrong. A function of its own: most programs' packets never come here.
 */
__attribute__((noinline)) __u64 inner_sum(struct xdp_md *ctx, __u32 l3)
{
	void *data, *end, *ip;

	if (!ctx)
		return 0; /* never: the verifier wants arguments to be checked */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ip = data + ETH_BYTES + packet_tag_bytes(l3);
	if (ip + IP4_BYTES > end)
		return 0;
	if (LD8(ip) >> 4 == 4)
		return inner4_sum(ip, end);
	if (ip + IP6_BYTES > end)
		return 0;
	return inner6_sum(ip, end);
}

/* The checksum of the UDP header at udp, whose checksum field is still 0. */
static __always_inline __u16 outer_checksum(void *udp, void *src, int words, __u64 inner)
{
	__u64 sum = inner + sum_words(udp, 2) + sum_words(src, words);

	/* One at a time: 32-bit words added to each other would lose a carry. */
	sum += bpf_htonl(bpf_ntohs(LD16(udp + 4)));
	sum += bpf_htonl(IPPROTO_UDP);
	sum = (__u16)~sum_fold(sum);
	return sum ? sum : 0xffff; /* 0 would mean that there is none: RFC 768 */
}
