// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Where a bench's traffic ends: counts packets by the server that they were sent to, finds those out of
// order, and takes the time of those that carry theirs. Packets that are not the bench's pass, so that
// the machine keeps its connections.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "access.h"
#include "traffic.h"

#define SERVERS_LEN 8192
#define FLOWS_LEN (1 << 18)	// power of two; a Go constant must agree
#define TIMED_EVERY 64		// as in generator.bpf.c; pktgen stamps all packets
#define SUB_BITS 3		// a power of two of latencies is cut in 2^SUB_BITS
#define LATENCIES_LEN 320	// up to 2^40 ns and more; a Go constant must agree
#define GUE_LEN 8		// the outer UDP header

struct server {
	__u64 packets, bytes;
};

// Of the flow that was last seen at its place: tag tells which.
struct last {
	__u32 tag, number;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, SERVERS_LEN);
	__type(key, struct in6_addr);
	__type(value, struct server);
} servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLOWS_LEN);
	__type(key, __u32);
	__type(value, struct last);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LATENCIES_LEN);
	__type(key, __u32);
	__type(value, __u64);
} latencies SEC(".maps");

enum tally {
	TALLY_RECEIVED,		// packets of the bench
	TALLY_PLAIN,		// those of them that were not encapsulated
	TALLY_DISORDERED,	// those that came behind a later one of their flow
	TALLY_UNCOUNTED,	// those to servers for which there was no room
	TALLY_LEN,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TALLY_LEN);
	__type(key, __u32);
	__type(value, __u64);
} tallies SEC(".maps");

volatile const __u64 day_offset_ns;	// time of day - monotonic clock

static __always_inline void tally_add(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&tallies, &which);

	if (n)
		(*n)++;
}

static __always_inline void server_count(struct in6_addr *addr, __u64 bytes)
{
	struct server *known = bpf_map_lookup_elem(&servers, addr);

	if (!known) {
		struct server fresh = {};

		bpf_map_update_elem(&servers, addr, &fresh, BPF_NOEXIST);
		known = bpf_map_lookup_elem(&servers, addr);
		if (!known) {
			tally_add(TALLY_UNCOUNTED);
			return;
		}
	}
	known->packets++;
	known->bytes += bytes;
}

static __always_inline void order_check(__u32 source, __u16 port, __u32 number)
{
	__u32 tag = source * 0x9e3779b1 + port * 0x85ebca6b, at = tag * 0x9e3779b1 >> 14;
	struct last *last = bpf_map_lookup_elem(&flows, &at);

	if (!last)
		return;
	if (last->tag == tag && last->number && (__s32)(number - last->number) <= 0) {
		tally_add(TALLY_DISORDERED);
		return;
	}
	last->tag = tag;
	last->number = number;
}

static __always_inline __u32 log2_of(__u64 v)
{
	__u32 shift, r = 0;

#pragma unroll
	for (shift = 32; shift; shift >>= 1) {
		if (v >> shift) {
			v >>= shift;
			r += shift;
		}
	}
	return r;
}

// A number below 2^SUB_BITS has a place of its own.
static __always_inline void latency_count(__u64 ns)
{
	__u32 at = ns, power;
	__u64 *n;

	if (ns >> SUB_BITS) {
		power = log2_of(ns);
		at = ((power - SUB_BITS + 1) << SUB_BITS) + ((ns >> (power - SUB_BITS)) & ((1 << SUB_BITS) - 1));
	}
	if (at >= LATENCIES_LEN)
		at = LATENCIES_LEN - 1;
	n = bpf_map_lookup_elem(&latencies, &at);
	if (n)
		(*n)++;
}

static __always_inline void stamp_time(struct stamp *stamp, __u32 number)
{
	__u64 first = bpf_ntohl(stamp->time[0]), second = bpf_ntohl(stamp->time[1]), then, now;

	if (stamp->magic == bpf_htonl(PKTGEN_MAGIC)) {
		if (number & (TIMED_EVERY - 1))
			return;
		then = first * 1000000000 + second * 1000 - day_offset_ns;
	} else {
		then = first << 32 | second;
		if (!then)
			return;
	}
	now = bpf_ktime_get_ns();
	latency_count(now > then ? now - then : 0);
}

// Reads an IP header at *at, gives its destination and next protocol, and moves *at behind it; type is 4
// or 6. Headers with options are not the bench's.
static __always_inline int ip_read(void **at, void *data_end, int type, struct in6_addr *dst, __u32 *source, __u8 *proto)
{
	if (type == 4) {
		struct iphdr *ip = *at;

		if ((void *)(ip + 1) > data_end || ip->ihl != 5 || ip->version != 4)
			return -1;
		*dst = (struct in6_addr){};
		dst->s6_addr32[2] = bpf_htonl(0xffff);
		dst->s6_addr32[3] = LD32(&ip->daddr);
		*source = LD32(&ip->saddr);
		*proto = ip->protocol;
		*at = ip + 1;
		return 0;
	} else {
		struct ipv6hdr *ip = *at;

		if ((void *)(ip + 1) > data_end || ip->version != 6)
			return -1;
		__builtin_memcpy(dst, &ip->daddr, sizeof(*dst));
		*source = LD32((void *)&ip->saddr + 12);
		*proto = ip->nexthdr;
		*at = ip + 1;
		return 0;
	}
}

// Leaves *at at the stamp of a packet of UDP, and source and port of its flow.
static __always_inline int udp_read(void **at, void *data_end, __u16 *port, struct stamp **stamp)
{
	struct udphdr *udp = *at;

	*stamp = (void *)(udp + 1);
	if ((void *)(*stamp + 1) > data_end)
		return -1;
	*port = udp->source;
	if ((*stamp)->magic != bpf_htonl(STAMP_MAGIC) && (*stamp)->magic != bpf_htonl(PKTGEN_MAGIC))
		return -1;
	return 0;
}

// The IP version that the outer header's payload has; 0: it is no tunnel.
static __always_inline int inner_type(void **at, void *data_end, __u8 proto)
{
	if (proto == IPPROTO_IPIP)
		return 4;
	if (proto == IPPROTO_IPV6)
		return 6;
	if (proto != IPPROTO_UDP || *at + GUE_LEN + 1 > data_end)
		return 0;
	// GUE variant 1: the payload begins with an IP header. A stamp does not look like one.
	switch (*(__u8 *)(*at + GUE_LEN) >> 4) {
	case 4:
		*at += GUE_LEN;
		return 4;
	case 6:
		*at += GUE_LEN;
		return 6;
	}
	return 0;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *at;
	struct in6_addr server, unused;
	struct ethhdr *eth = data;
	struct stamp *stamp;
	__u32 source, number;
	int inner, type = 4;
	__u16 port;
	__u8 proto;

	if ((void *)(eth + 1) > data_end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		type = 6;
	else if (eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	at = eth + 1;
	if (ip_read(&at, data_end, type, &server, &source, &proto))
		return XDP_PASS;
	inner = inner_type(&at, data_end, proto);
	if (inner && ip_read(&at, data_end, inner, &unused, &source, &proto))
		return XDP_PASS;
	if (proto != IPPROTO_UDP || udp_read(&at, data_end, &port, &stamp))
		return XDP_PASS;
	tally_add(TALLY_RECEIVED);
	if (!inner)
		tally_add(TALLY_PLAIN);
	number = bpf_ntohl(stamp->number);
	server_count(&server, data_end - data);
	order_check(source, port, number);
	stamp_time(stamp, number);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
