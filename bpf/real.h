// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Real: an id to its record. One compare in the hot path catches everything for which a packet
 * cannot be sent to a real; only then is it looked at why. An id of 0, or one that was never
 * given, finds a record of zeros: its longest packet has 0 bytes.
 */
#pragma once

static __always_inline enum reason real_refusal(__u32 id, const struct real *real)
{
	if (id == 0)
		return REASON_RING_EMPTY;
	if (!real || real->kind == ENCAP_NONE)
		return REASON_REAL_UNKNOWN;
	if (real->kind == ENCAP_LOCAL)
		return REASON_LOCAL;
	return real->mac ? REASON_TOO_BIG : REASON_NEXTHOP_UNKNOWN;
}
