// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a card's tables look like where they differ from the host's (types.h). An element, key and value
 * each rounded up to eight bytes, takes 64 bytes at most. Byte orders as in types.h.
 *
 *	map		type	key			value
 *	vips4		HASH	the word of types.h	the word of types.h
 *	vips6		HASH	struct card_vip6_key	the same
 *	rings		ARRAY	slot / CARD_SLOTS	struct card_slots
 *	reals		ARRAY	id			struct real, the first CARD_REAL_BYTES
 *	real_counters	ARRAY	id			struct counter
 *	pass_counters	ARRAY	enum card_pass		__u64, packets
 */
#pragma once

/* A card counts elements, not bytes: slots that share one make room for more rings. */
#define CARD_SLOTS 8

/* By slot: the real, if the slot is stable; 0 sends its packets up to the host. */
struct card_slots {
	__u32 real[CARD_SLOTS];
};

struct card_vip6_key {
	__u64 addr[2];
	__u64 port_proto;
};

/* All but the last word, which is about flows. */
#define CARD_REAL_BYTES 56

/* Why a packet is not sent but passes up to the host, which looks at it anew. */
enum card_pass {
	CARD_SENT,	/* it does not: counted by real */
	CARD_NOT_PLAIN,	/* not what parse_plain.h knows */
	CARD_NOT_VIP,
	CARD_VIP_FLAGS,	/* the VIP needs more than the stable path */
	CARD_SLOT,	/* not stable, or empty */
	CARD_REAL,	/* no packet can be sent to it, or not such a long one */
	CARD_NO_ROOM,	/* in front of the frame */
	CARD_PASS_LEN,
	/* Dropped, since it had grown, and not counted. Never: what is parsed is long enough. */
	CARD_LOST = CARD_PASS_LEN,
};
