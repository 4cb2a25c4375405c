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
	ENCAP_LOCAL, /* not at all: this machine is the real */
	ENCAP_LEN,
};

/* Which packets a real may get. */
enum real_use {
	REAL_ACTIVE,
	REAL_DRAINING, /* of known flows only */
	REAL_RETIRED,
};

/*
 * A real, one cache line: what is written in front of the inner packet, prepared. Each word of it
 * is written at once. mac, limits and use may change under traffic; the rest never does for an id.
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
	__u8 use;	 /* enum real_use */
	__u8 generation; /* tells the holders of one id apart */
	__u8 reserved[6];
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

/* Value: first slot of the ring (32 bits), slots in the ring (20), flags (12). */
#define VIP_SIZE_SHIFT 32
#define VIP_SIZE_MASK 0xfffffu
#define VIP_FLAGS_SHIFT 52
#define VIP_FLOWS_ALWAYS 1 /* each flow is remembered, also on stable slots */
#define VIP_QUIC 2	   /* an Initial or 0-RTT packet begins a flow */
#define VIP_OPTIONS 4	   /* the word in front of the ring is not 0 in its upper half */
#define VIP_FRAGMENTS_PASS 8 /* of a fragment's entry only: no ring, fragments are the host's */
#define VIP_HOST_BITS_SHIFT 4 /* seven bits: of the address, how many are free; 0 but for prefixes */
#define VIP_BY_PORT_0 0x800   /* port 0, that is, all ports; set by the program, but in a fragment's entry */

/*
 * A fragment's VIP is looked up with port 0 and its protocol with this bit set: such an entry is there
 * for VIPs whose fragments go by client, and for those whose fragments pass.
 */
#define VIP_FRAGMENT_PROTOCOL 0x80

/*
 * VIPs of a prefix, in a trie. The value is that of a VIP; for port and protocol 0, which
 * no packet has, it only tells that the addresses have a VIP.
 */
struct vip_prefix {
	__u32 bits;	  /* of what follows: 32 and the length of the prefix */
	__be16 port;
	__u8 protocol;
	__u8 family;	  /* 4 or 6 */
	__u64 addr[2];	  /* IPv4 in the first four bytes, the rest 0 */
} __attribute__((packed));

/*
 * The word in front of a ring's first slot: the ring's id (32 bits), and the VIP's options (32), which are
 * 0 unless the VIP's value has VIP_OPTIONS.
 */
#define OPTIONS_SHIFT 32
#define OPTION_NO_SOURCE_PORT 1
#define OPTION_KEEP_DESTINATION_PORT 2
#define OPTION_DESTINATION_PORT_ONLY 4
#define OPTION_BY_CLIENT 8	/* fragments, and with them all packets, go by client */
#define OPTION_KATRAN_IDS 16	/* in QUIC connection ids */
#define OPTION_QUIC_LB_IDS 32
#define OPTION_TCP_IDS 64
#define OPTION_UDP_IDS 128
#define OPTION_SOURCE_ROUTES 256
#define OPTION_FRAGMENTS_PASS 512 /* in vip_info only: the packet program has it in an entry of its own */

/*
 * Where a server id, or a backend that a source route names, leads on a ring's VIP. server_id 0: by address.
 * The value is a real's id.
 */
struct target {
	__u32 ring;
	__u32 server_id;
	__u64 addr[2]; /* as in struct vip_addr; both 0: by server id */
};

/* Clients' prefixes, in a trie; the value is the address of a backend, as in struct target. */
struct source_prefix {
	__u32 bits; /* of what follows: 32 and the length of the prefix */
	__u32 family; /* 4 or 6, host order */
	__u64 addr[2];
} __attribute__((packed));

/*
 * What of the program is used. Set before loading: the verifier removes the rest, so that what no VIP
 * asks for costs nothing.
 */
enum feature {
	FEATURE_OPTIONS = 1,  /* some VIP has options */
	FEATURE_PREFIXES = 2, /* some VIP is a prefix */
	FEATURE_DECAP = 4,
};

/* What becomes of an inner packet. */
enum decap_action {
	DECAP_NONE,
	DECAP_BALANCE,
	DECAP_EGRESS,
	DECAP_HOST,
	DECAP_ACTION_LEN,
};

/* Constants of one load of the program. */
struct load_settings {
	__u32 features;		  /* enum feature, together */
	__be16 decap_gue_port;	  /* 0: GUE is not looked at */
	__u8 decap_others;	  /* enum decap_action, for destinations that are not listed */
	__u8 quic_lb_config;	  /* configuration id, 0 to 6 */
	__u8 quic_lb_bytes;	  /* of the server's number, 1 to 4 */
	__u8 reserved[3];
};

/* How many echo requests and packets that are too big are answered per CPU and tick, together. */
struct answer_settings {
	__u32 limit;
};

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

/*
 * An address that is looked up as it is. IPv4 is in the first four bytes and all other bits are set, so
 * that no address of IPv6 that hosts have is the same.
 */
#define IP4_REST 0xffffffff00000000ULL /* of the first word; the second has all bits set */

struct vip_addr {
	__u64 addr[2];
};

/*
 * The word that says where a table's buckets are: it is the seed itself. Bit 0 is set; bit 1 is the
 * half in use: even or odd buckets, so that a new set is written beside the old one and taken
 * into use by one store; bits 2..7 are the shift that makes an index of the product; bit 8 tells
 * that some VIP of the family has port 0 or is a prefix, so that a miss is worth a second look.
 */
#define VIP_HALF_SHIFT 1
#define VIP_SHIFT_SHIFT 2
#define VIP_SHIFT_MASK 63
#define VIP_AGAIN_SHIFT 8

/*
 * A ring's slot is one word: the real that has it (32 bits), the one that had it before (30), the
 * slot's state (2). The upper half of a stable slot is zero.
 */
#define SLOT_PREV_SHIFT 32
#define SLOT_PREV_MASK 0x3fffffffu
#define SLOT_STATE_SHIFT 62

enum slot_state {
	SLOT_STABLE,
	SLOT_MOVING,
	SLOT_SETTLING,
	SLOT_LINGERING,
	SLOT_STATE_LEN,
};

/*
 * Remembered flows: buckets of one cache line, four flows each; a flow is in one of the two buckets
 * that its tag leads to. docs/decisions/0006-flow-table.md says why it looks like this.
 *
 * Tag word: bit 0 the flow was seen again after it was remembered, by a packet that does not begin
 * it; bits 1..8 generation of the real's id; bits 9..63 the tag itself, a hash of the flow, never 0.
 * The word is 0 while the entry is free, and FLOW_CLAIMED while one CPU writes it.
 *
 * Value: bits 0..23 real, 24..43 slot within the ring, 44..63 tick at which it was last seen.
 */
#define FLOW_PER_BUCKET 4
#define FLOW_SEEN 1
#define FLOW_GENERATION_SHIFT 1
#define FLOW_GENERATION_MASK 0xff
#define FLOW_TAG_SHIFT 9
#define FLOW_CLAIMED 1
#define FLOW_REAL_MASK 0xffffffu
#define FLOW_SLOT_SHIFT 24
#define FLOW_SLOT_MASK 0xfffffu
#define FLOW_TICK_SHIFT 44
#define FLOW_TICK_MASK 0xfffffu

struct flow_bucket {
	__u64 tag[FLOW_PER_BUCKET];
	__u64 value[FLOW_PER_BUCKET];
} __attribute__((aligned(64)));

/* What the control plane sets of the flow table. A tick is about a second. */
struct flow_settings {
	__u32 bucket_mask;   /* number of buckets less one */
	__u32 tick_shift;    /* a tick is 1 << tick_shift jiffies */
	__u32 insert_limit;  /* new flows remembered per CPU and tick */
	__u32 udp_idle_ticks; /* with VIP_FLOWS_ALWAYS a UDP flow that pauses longer is new */
};

/* New flows remembered by one CPU in its present tick. */
struct flow_guard {
	__u32 tick;
	__u32 inserts;
};

/* Answers sent by one CPU in its present tick. */
struct answer_guard {
	__u32 tick;
	__u32 answers;
};

/* What happened at the flow table. */
enum flow_event {
	FLOW_HIT,	   /* the packet's flow was known */
	FLOW_HIT_STALE,	   /* it was, at a real that may not receive any more */
	FLOW_BEGAN,	   /* a flow that begins was remembered */
	FLOW_TAKEN_OLD,	   /* unknown on a moving slot: sent to the previous real */
	FLOW_TAKEN_NEW,	   /* unknown elsewhere, not beginning: sent to the current real */
	FLOW_REFUSED_RATE, /* not remembered: too many in this tick */
	FLOW_REFUSED_FULL, /* not remembered: both buckets hold flows that were seen again */
	FLOW_REFUSED_BUSY, /* not remembered: another CPU wrote the entry this moment */
	FLOW_EVICTED,	   /* made room by forgetting another */
	FLOW_REPAIRED,	   /* was given the real that the packet's server id names */
	FLOW_EVENT_LEN,
};

struct counter {
	__u64 pkts;
	__u64 bytes;
};

/*
 * Why the program ended; the order gives the verdict. docs/packet-path.md says when each is given.
 * REASON_FORWARDED itself is not counted here: it is the sum over all reals, less REASON_LOCAL.
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
	/* answered, or sent otherwise */
	REASON_ECHO_ANSWERED,
	REASON_TOO_BIG_TOLD,
	REASON_DECAP_SENT,
	/* dropped again, and passed: numbers stay when reasons are added */
	REASON_TTL_EXPIRED,
	REASON_ECHO_LIMITED,
	REASON_LOCAL,
	REASON_DECAPSULATED,
	REASON_FRAGMENT_PASSED,
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
	__u8 flow_mode;	 /* 0 transitions, 1 always, 2 never, 3 QUIC */
	__u8 host_bits;	 /* 0: one address; else of a prefix */
	__u16 options;	 /* OPTION_* */
	char service[64];
};
_Static_assert(sizeof(struct vip_info) == 100, "no hidden padding");

struct real_info {
	__u8 addr[16]; /* of the backend: the outer destination */
	__u8 vip_addr[16];
	__u16 vip_port;
	__u8 vip_protocol;
	__u8 encap; /* 0 IPIP, 1 GUE, 2 local */
	__u32 weight;
	__u8 source[16]; /* outer source or its prefix */
	__u8 source_bits;
	__u8 checksum;
	__u16 gue_port;
	__u8 in_use;
	__u8 mac_stale; /* the kernel could not confirm the next hop's MAC lately */
	__u8 vip_host_bits;
	__u8 reserved;
};
_Static_assert(sizeof(struct real_info) == 64, "no hidden padding");

struct instance_info {
	__u32 schema; /* of all maps here: a program of another schema starts anew */
	__u32 ifindex;
	__u32 mode; /* effective attach mode: 1 native, 2 generic */
	__u32 source_routes; /* how many there are: to count them takes seconds */
	__u64 attached_sec; /* Unix time */
	char interface[16];
	char mode_reason[472];
};
_Static_assert(sizeof(struct instance_info) == 512, "no hidden padding");
