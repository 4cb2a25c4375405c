// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The path of a packet: parse, VIP, ring, real, encapsulate, count. Steps return a reason; 0,
 * REASON_FORWARDED, means go on. There is one exit, which counts. The stable path handles what
 * nearly every packet looks like; everything else goes to a function of its own, which costs the
 * stable path neither registers nor code.
 */
#pragma once

#include "bytes.h"
#include "packet.h"
#include "hash.h"
#include "vip.h"
#include "flow_table.h"
#include "flow.h"
#include "ring.h"
#include "real.h"
#include "icmp.h"
#include "echo.h"
#include "parse.h"
#include "checksum.h"
#include "outer.h"
#include "encap.h"

/* What becomes of packets that end for a reason. */
static __always_inline int verdict(enum reason why)
{
	if (why == REASON_FORWARDED || why == REASON_ECHO_ANSWERED)
		return XDP_TX;
	return why >= REASON_NOT_IP ? XDP_PASS : XDP_DROP;
}

/* VIP to count: what a parsed packet goes through, whichever path parsed it. */
static __always_inline enum reason forward(struct xdp_md *ctx, const struct packet *p)
{
	const struct real *real;
	__u32 hashed_ports, id;
	enum reason why;
	__u64 vip;

	vip = vip_lookup(p, &hashed_ports);
	if (!vip)
		return REASON_NOT_VIP;
	id = ring_select(ctx, p, vip, hashed_ports);
	real = real_get(id);
	if (unlikely(!real || p->bytes > real->max_bytes))
		return real_refusal(id, real);
	why = encapsulate(ctx, p, real);
	if (likely(why == REASON_FORWARDED))
		count_forwarded(id, p->bytes);
	return why;
}

/* The rest of the path for packets that the stable path left undecided. */
static __always_inline enum reason forward_any(struct xdp_md *ctx)
{
	struct packet p = {};
	enum reason why = parse_any(ctx, &p);

	switch (why) {
	case REASON_FORWARDED:
		return forward(ctx, &p);
	case REASON_FRAGMENT:
		return vip_has_address(&p) ? REASON_FRAGMENT : REASON_NOT_VIP;
	case REASON_ECHO_ANSWERED:
		return vip_has_address(&p) ? echo_answer(ctx, &p) : REASON_ICMP;
	default:
		return why;
	}
}

__attribute__((noinline)) int slow_path(struct xdp_md *ctx)
{
	enum reason why;

	if (!ctx)
		return XDP_ABORTED; /* never: the verifier wants arguments to be checked */
	why = forward_any(ctx);
	if (why != REASON_FORWARDED)
		count_reason(why);
	return verdict(why);
}

static __always_inline int balance(struct xdp_md *ctx)
{
	struct packet p = {};
	enum reason why = parse_plain(ctx, &p);

	if (likely(why == REASON_FORWARDED))
		why = forward(ctx, &p);
	if (likely(why == REASON_FORWARDED))
		return XDP_TX;
	if (why == REASON_UNDECIDED)
		return slow_path(ctx);
	count_reason(why);
	return verdict(why);
}
