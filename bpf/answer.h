// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Answers that the program sends by itself, to echo requests and packets that are too big: whom they may
 * go to, and their budget.
 */
#pragma once

#define IP4_MULTICAST 224 /* first byte, and all that follow it: RFC 1112 section 4 */
#define IP6_MULTICAST 0xff

/* Whether frame and packet come from a single host, and to this one: RFC 1122 section 3.2.2, RFC 4443 2.4. */
static __always_inline int answer_to_host(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *ip = data + ETH_BYTES + packet_tag_bytes(p->l3);

	if (data + ETH_BYTES > end || LD8(data) & 1 || ip + IP4_BYTES > end)
		return 0;
	if (!p->is_v6)
		return LD8(ip + 12) != 0 && LD8(ip + 12) < IP4_MULTICAST;
	if (ip + IP6_BYTES > end)
		return 0; /* never: it was parsed */
	return LD8(ip + 8) != IP6_MULTICAST && (LD64(ip + 8) | LD64(ip + 16));
}

/* Whether this CPU may send one more answer in this tick. */
static __always_inline int answer_admits(void)
{
	struct answer_guard *guard = answer_guard_get();
	__u32 tick = flow_tick();

	if (!guard)
		return 0; /* never: the index is constant */
	if (guard->tick != tick) {
		guard->tick = tick;
		guard->answers = 0;
	}
	if (guard->answers >= answer_settings.limit)
		return 0;
	guard->answers++;
	return 1;
}
