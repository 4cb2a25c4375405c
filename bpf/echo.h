// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * ICMP echo to the address of a VIP is answered here, since the host does not own the address. The
 * request becomes its own answer: docs/packet-path.md section 2.
 */
#pragma once

#define ECHO_TTL 64

static __always_inline void echo_set_type(void *icmp, __u8 type)
{
	__u16 from = LD16(icmp), sum;

	ST8(icmp, type);
	sum = checksum_adjust(LD16(icmp + 2), from, LD16(icmp));
	/* Both zeros are valid, unless all else is zero too: then only this one is. */
	ST16(icmp + 2, sum ? sum : 0xffff);
}

static __always_inline void echo_answer4(void *ip)
{
	__u32 src = LD32(ip + 12), dst = LD32(ip + 16);
	__u64 sum = 0;

	ST8(ip + 8, ECHO_TTL);
	ST16(ip + 10, 0);
	ST32(ip + 12, dst);
	ST32(ip + 16, src);
#pragma clang loop unroll(full)
	for (int i = 0; i < IP4_BYTES; i += 4)
		sum += LD32(ip + i);
	ST16(ip + 10, ~sum_fold(sum));
	echo_set_type(ip + IP4_BYTES, 0);
}

static __always_inline void echo_answer6(void *ip)
{
	__u64 src0 = LD64(ip + 8), src1 = LD64(ip + 16);

	ST8(ip + 7, ECHO_TTL);
	ST64(ip + 8, LD64(ip + 24));
	ST64(ip + 16, LD64(ip + 32));
	ST64(ip + 24, src0);
	ST64(ip + 32, src1);
	echo_set_type(ip + IP6_BYTES, ICMP6_ECHO + 1);
}

/* After icmp.h found that there is a whole echo header; the verifier wants to see it again. */
static __always_inline enum reason echo_answer(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *ip = data + ETH_BYTES + packet_tag_bytes(p->l3);
	struct link_header link;

	if (data + LINK_BYTES_MAX > end)
		return REASON_TRUNCATED;
	if (p->is_v6) {
		if (ip + IP6_BYTES + ICMP_BYTES > end)
			return REASON_TRUNCATED;
		echo_answer6(ip);
	} else {
		if (ip + IP4_BYTES + ICMP_BYTES > end)
			return REASON_TRUNCATED;
		echo_answer4(ip);
	}
	link_read(data, &link);
	link_swap_macs(&link);
	link_write(data, p->l3, &link);
	return REASON_ECHO_ANSWERED;
}
