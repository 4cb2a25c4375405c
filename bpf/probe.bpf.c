// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Health checks that take the packet's own way. A program on the host's way out (TC egress): it
 * wraps a packet whose mark names a real as the packet program would wrap a client's packet for
 * that real, with the same record and the same functions (outer.h). Packets without a mark of the
 * range are not looked at any further.
 *
 * Checksums: the kernel completes that of the inner packet after this program, from csum_start,
 * which stays where it is when room is made in front of it; or the card does, where it can do so
 * inside a tunnel. The flags of bpf_skb_adjust_room say that there is one. The outer UDP checksum
 * of GUE is always zero.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "types.h"
#include "probe_types.h"
#include "bytes.h"
#include "packet.h"
#include "outer.h"
#include "probe_packet.h"

/* The upper bits of the marks of the range; the lower ones are a real's id. */
#define PROBE_ID_MASK 0xffffffu

/* enum tcx_action_base of linux/bpf.h since 6.6 (kernel and headers may be of different ages). */
#define TCX_NEXT (-1)
#define TCX_DROP 2

/* Setting, constant before the program is loaded. */
const volatile __u32 setting_mark_base = 0x72000000;

/* By mark. The loader sets max_entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct real);
} reals SEC(".maps");

/* Packets by enum probe_outcome. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROBE_OUTCOME_LEN);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* Bytes of the outer headers, and for the kernel what they are. */
struct outer {
	__u32 bytes;
	__u64 flags;
};

static __always_inline struct outer outer_of(const struct real *real)
{
	int gue = real->kind >= ENCAP_GUE4;
	int v6 = real->kind == ENCAP_IPIP6 || real->kind == ENCAP_GUE6 ||
		 real->kind == ENCAP_GUE6_SUM;
	struct outer o = {
		.bytes = v6 ? IP6_BYTES : IP4_BYTES,
		/* Segments keep their size: it was checked with the outer headers. */
		.flags = BPF_F_ADJ_ROOM_FIXED_GSO |
			 (v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4),
	};

	if (gue) {
		o.bytes += UDP_BYTES;
		o.flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	}
	return o;
}

/* The outer headers, into the room that was made for them. */
static __always_inline void probe_put(void *at, const struct packet *p, const struct real *real)
{
	__u64 own_mac = LD64(at + 6); /* and two more bytes above it, as outer.h expects */

	switch (real->kind) {
	case ENCAP_IPIP4:
		put_ipip4(at, p, real, own_mac);
		return;
	case ENCAP_IPIP6:
		put_ipip6(at, p, real, own_mac);
		return;
	case ENCAP_GUE4:
	case ENCAP_GUE4_SUM:
		put_gue4(at, p, real, own_mac);
		return;
	default:
		put_gue6(at, p, real, own_mac);
	}
}

static __always_inline enum probe_outcome probe_wrap(struct __sk_buff *skb)
{
	struct packet p = {};
	enum probe_outcome what;
	struct real *real;
	struct outer outer;
	__u32 mark = skb->mark, longest = 0;
	void *data;

	real = bpf_map_lookup_elem(&reals, &mark);
	if (!real || real->kind == ENCAP_NONE)
		return PROBE_NO_REAL;
	if (!real->mac)
		return PROBE_NO_NEXTHOP;
	what = probe_parse(skb, &p, &longest);
	if (what)
		return what;
	if (longest > real->max_bytes)
		return PROBE_TOO_BIG;
	outer = outer_of(real);
	if (bpf_skb_adjust_room(skb, outer.bytes, BPF_ADJ_ROOM_MAC, outer.flags))
		return PROBE_NO_ROOM;
	data = (void *)(long)skb->data;
	/* The longest headers; what is behind shorter ones was in reach before, and still is. */
	if (data + ETH_BYTES + IP6_BYTES + UDP_BYTES > (void *)(long)skb->data_end)
		return PROBE_NO_ROOM;
	probe_put(data, &p, real);
	skb->mark = 0;
	return PROBE_WRAPPED;
}

static __always_inline void probe_count(enum probe_outcome what)
{
	__u32 key = what;
	__u64 *packets = bpf_map_lookup_elem(&outcomes, &key);

	/* Cannot be NULL: outcomes are below the map's size. For the verifier. */
	if (packets)
		(*packets)++;
}

/* TCX_NEXT leaves the rest to whoever is attached behind, and to the kernel. */
SEC("tcx/egress")
int remora_probe(struct __sk_buff *skb)
{
	enum probe_outcome what;

	if ((skb->mark & ~PROBE_ID_MASK) != setting_mark_base)
		return TCX_NEXT;
	what = probe_wrap(skb);
	probe_count(what);
	return what == PROBE_WRAPPED ? TCX_NEXT : TCX_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
