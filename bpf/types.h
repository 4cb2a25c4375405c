// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Everything that the packet program shares with its control plane, and only that. Words that end
 * up in a packet, or come from one, are in memory (packet) order; all others are host order.
 */
#pragma once

#define RING_SIZE_DEFAULT 65537 /* Katran's; a flow's slot is hash mod size */

/* How a real's packets are wrapped. GUE_SUM kinds carry a computed outer UDP checksum. */
enum encap {
	ENCAP_NONE,
	ENCAP_IPIP4,
	ENCAP_IPIP6,
	ENCAP_GUE4,
	ENCAP_GUE6,
	ENCAP_GUE4_SUM,
	ENCAP_GUE6_SUM,
	ENCAP_LEN,
};

/*
 * A real, one cache line: what is written in front of the inner packet, prepared. Each word of it
 * is written at once. mac and limits may change under traffic; the rest never changes for an id.
 * A card's element has room for all but the last word (64 bytes with its key).
 */
struct real {
	__u64 mac;	 /* next hop: bytes 0..5 of the frame; 0 while it is not known */
	__u64 fixed;	 /* bytes 16..23 of the frame; length (IPv6: source too) zero */
	__u64 dst[2];	 /* outer destination; IPv4 in the low half of dst[0] */
	__u64 src[2];	 /* outer source, or its prefix; where entropy goes is zero */
	__u16 sum;	 /* IPv4: sum of the constant 16-bit words of the outer header */
	__u16 max_bytes; /* longest inner packet; 0 while packets cannot be sent */
	__u16 kind;	 /* enum encap */
	__be16 gue_port; /* outer UDP destination port */
	__u64 reserved;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct real) == 64, "one cache line");

/*
 * VIP tables: buckets of one cache line, found by multiplication with a seed with which no bucket
 * overflows. An entry is a key and a value.
 *
 * Key, IPv4: address (32 bits), port in network order (16), protocol (8), 0 (8), as one word from
 * the lowest bit up. IPv6: the address in two words, then a word with port and protocol likewise.
 * No protocol is 0, so an unused entry, all zero, is found by no packet.
 */

/* Value: first slot of the ring (32 bits), slots in the ring (20), flags (12; none yet). */
#define VIP_SIZE_SHIFT 32
#define VIP_SIZE_MASK 0xfffffu

struct vip4_bucket {
	__u64 key[4];
	__u64 value[4];
} __attribute__((aligned(64)));

struct vip6_entry {
	__u64 addr[2];
	__u64 port_proto;
	__u64 value;
};

struct vip6_bucket {
	struct vip6_entry entry[2];
} __attribute__((aligned(64)));

/* An address that has a VIP: IPv4 in the first four bytes and the rest 0, or IPv6. */
struct vip_addr {
	__u64 addr[2];
};

/*
 * The word that says where a table's buckets are: it is the seed itself. Bit 0 is set; bit 1 is the
 * half in use: even or odd buckets, so that a new set is written beside the old one and taken
 * into use by one store; bits 2..7 are the shift that makes an index of the product; bit 8 tells
 * that some VIP of the table has port 0, so that a miss is worth a second look.
 */
#define VIP_HALF_SHIFT 1
#define VIP_SHIFT_SHIFT 2
#define VIP_SHIFT_MASK 63
#define VIP_ANY_PORT_SHIFT 8

/*
 * A ring's slot is one word: the real that has it (32 bits), the one that had it before (30), the
 * slot's state (2). The upper half of a stable slot is zero.
 */

struct counter {
	__u64 pkts;
	__u64 bytes;
};

/*
 * Why the program ended; the order gives the verdict. docs/packet-path.md says when each is given.
 * REASON_FORWARDED itself is not counted here: it is the sum over all reals.
 */
enum reason {
	REASON_FORWARDED,
	/* dropped */
	REASON_TRUNCATED,
	REASON_MALFORMED,
	REASON_FRAGMENT,
	REASON_RING_EMPTY,
	REASON_REAL_UNKNOWN,
	REASON_NEXTHOP_UNKNOWN,
	REASON_TOO_BIG,
	REASON_NO_ROOM,
	/* passed */
	REASON_NOT_IP,
	REASON_NOT_VIP,
	REASON_OTHER_PROTOCOL,
	REASON_ICMP,
	REASON_IPV6_EXTENSION,
	/* answered */
	REASON_ECHO_ANSWERED,
	REASON_LEN,
	/* Not an end: the stable path cannot tell, the slow path can. */
	REASON_UNDECIDED = REASON_LEN,
};

/*
 * What the entries mean, for people, bpftool and the next start of the control plane; the program
 * does not read it. Addresses are 16 bytes, IPv4 as IPv4-mapped IPv6; ports are host order.
 */
struct vip_info {
	__u8 addr[16];
	__u16 port;
	__u8 protocol;
	__u8 ring_hash;
	__u32 ring_id;
	__u32 ring_first_slot;
	__u32 ring_size; /* 0: the entry is not in use */
	char service[64];
};
_Static_assert(sizeof(struct vip_info) == 96, "no hidden padding");

struct real_info {
	__u8 addr[16]; /* of the backend: the outer destination */
	__u8 vip_addr[16];
	__u16 vip_port;
	__u8 vip_protocol;
	__u8 encap; /* 0 IPIP, 1 GUE */
	__u32 weight;
	__u8 source[16]; /* outer source or its prefix */
	__u8 source_bits;
	__u8 checksum;
	__u16 gue_port;
	__u8 in_use;
	__u8 mac_stale; /* the kernel could not confirm the next hop's MAC lately */
	__u8 reserved[2];
};
_Static_assert(sizeof(struct real_info) == 64, "no hidden padding");

struct instance_info {
	__u32 schema; /* of all maps here: a program of another schema starts anew */
	__u32 ifindex;
	__u32 mode; /* effective attach mode: 1 native, 2 generic */
	__u32 reserved;
	__u64 attached_sec; /* Unix time */
	char interface[16];
	char mode_reason[472];
};
_Static_assert(sizeof(struct instance_info) == 512, "no hidden padding");
