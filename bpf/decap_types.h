// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/*
 * What decap.bpf.c shares with Go (lb/decap): table keys, counters and the numbers of reasons and
 * kinds. A test in lb/decap compares the numbers with the names there.
 */

#include <linux/types.h>

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d, in network order. */
struct decap_addr {
	__be32 words[4];
};

_Static_assert(sizeof(struct decap_addr) == 16, "16 bytes are the key that Go writes");

struct decap_count {
	__u64 packets;
	__u64 bytes; /* of inner IP packets by their own length: no link header, no trailer */
};

_Static_assert(sizeof(struct decap_count) == 16, "no padding");

/*
 * Why the program ended. The first is the success, those before DECAP_OUTER_LENGTH leave the frame
 * untouched to the stack, DECAP_OUTER_LENGTH and what follows drop it.
 */
enum decap_reason {
	DECAP_DECAPSULATED,

	DECAP_NOT_IP,
	DECAP_OUTER_TRUNCATED,
	DECAP_OUTER_MALFORMED,
	DECAP_OUTER_EXTENSION,
	DECAP_OUTER_FRAGMENT,
	DECAP_OTHER_PROTOCOL,
	DECAP_OTHER_PORT,
	DECAP_OTHER_ADDRESS,
	DECAP_NOT_VIP,

	DECAP_OUTER_LENGTH,
	DECAP_INNER_TRUNCATED,
	DECAP_INNER_VERSION,
	DECAP_INNER_MALFORMED,
	DECAP_INNER_LENGTH,
	DECAP_ECN,
	DECAP_NOT_MOVED,

	DECAP_REASON_LEN,
};

/* What was decapsulated: tunnel, inner family, outer family. */
enum decap_kind {
	DECAP_IPIP_4IN4,
	DECAP_IPIP_6IN4,
	DECAP_IPIP_4IN6,
	DECAP_IPIP_6IN6,
	DECAP_GUE_4IN4,
	DECAP_GUE_6IN4,
	DECAP_GUE_4IN6,
	DECAP_GUE_6IN6,

	DECAP_KIND_LEN,
};
