// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What others are compared with. lb_stats, the smallest useful balancer, is the unit of all
// the published ratios: a change to it, to its maps or to what they hold makes every earlier figure
// incomparable. The others say what its parts cost.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "access.h"

#define RING_LEN 65537
#define REALS_LEN 4096
#define VIPS_LEN 1024

#define OUTER_LEN 20			// outer IPv4 header
#define OUTER_VIHL_TOS 0x0045		// version 4, header length 5, TOS 0, as bytes in memory
#define OUTER_DF 0x0040			// don't fragment, as bytes in memory
#define OUTER_TTL_PROTO (64 | (IPPROTO_IPIP << 8))
#define OUTER_SADDR 0x010010ac		// 172.16.0.1, as bytes in memory
#define OUTER_DADDR 0x0100c80a		// 10.200.0.1, as bytes in memory
#define NEXTHOP_MAC 0x020000000002ULL	// 02:00:00:00:00:02, as bytes in memory

struct flow {
	__be32 src, dst;
	__be16 sport, dport;
	__u32 proto;
};

struct real {
	__be32 dst;
	__u8 mac[6];
	__u16 unused;
};

struct counter {
	__u64 pkts, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RING_LEN);
	__type(key, __u32);
	__type(value, __u32);
} ref_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REALS_LEN);
	__type(key, __u32);
	__type(value, struct real);
} ref_reals SEC(".maps");

// Key: address, port and protocol in one word, as bytes in memory.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VIPS_LEN);
	__type(key, __u64);
	__type(value, __u32);
} ref_vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REALS_LEN);
	__type(key, __u32);
	__type(value, struct counter);
} ref_counters SEC(".maps");

static __always_inline __u32 rotate(__u32 v, int by)
{
	return (v << by) | (v >> (32 - by));
}

// The final mix of Bob Jenkins' lookup3 (public domain).
static __always_inline __u32 words_hash(__u32 a, __u32 b, __u32 c)
{
	c ^= b;
	c -= rotate(b, 14);
	a ^= c;
	a -= rotate(c, 11);
	b ^= a;
	b -= rotate(a, 25);
	c ^= b;
	c -= rotate(b, 16);
	a ^= c;
	a -= rotate(c, 4);
	b ^= a;
	b -= rotate(a, 14);
	c ^= b;
	c -= rotate(b, 24);
	return c;
}

static __always_inline __u32 flow_hash(struct flow *flow)
{
	return words_hash(flow->src, flow->dst + flow->proto,
			  ((__u32)flow->sport << 16 | flow->dport) + 0x9e3779b9);
}

// IPv4 without options or fragments, TCP or UDP; nothing else.
static __always_inline int flow_parse(struct xdp_md *ctx, struct flow *flow, __u16 *len)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + 14;
	__u16 *ports = data + 34;

	if (data + 14 + 20 + 4 > data_end)
		return -1;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return -1;
	if (ip->frag_off & bpf_htons(0x3fff))
		return -1;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return -1;
	flow->src = ip->saddr;
	flow->dst = ip->daddr;
	flow->sport = ports[0];
	flow->dport = ports[1];
	flow->proto = ip->protocol;
	*len = bpf_ntohs(ip->tot_len);
	return 0;
}

// Puts an outer IPv4 header and its checksum in front, and makes mac the next hop.
static __always_inline int ipip_encapsulate(struct xdp_md *ctx, __u32 saddr, __u32 daddr,
					    __u16 len, __u64 mac)
{
	void *data, *data_end;
	__u32 own_mac0, sum;
	__u16 own_mac4, total;

	if (bpf_xdp_adjust_head(ctx, -OUTER_LEN))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + 14 + 20 + 20 > data_end)
		return XDP_DROP;
	// The received frame's destination is still where it was.
	own_mac0 = LD32(data + 20);
	own_mac4 = LD16(data + 24);
	ST32(data, (__u32)mac);
	ST16(data + 4, (__u16)(mac >> 32));
	ST32(data + 6, own_mac0);
	ST16(data + 10, own_mac4);
	ST16(data + 12, bpf_htons(ETH_P_IP));
	total = bpf_htons(len + OUTER_LEN);
	sum = OUTER_VIHL_TOS + total + OUTER_DF + OUTER_TTL_PROTO;
	sum += (saddr & 0xffff) + (saddr >> 16) + (daddr & 0xffff) + (daddr >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ST32(data + 14, OUTER_VIHL_TOS | (__u32)total << 16);
	ST32(data + 18, OUTER_DF << 16);
	ST32(data + 22, OUTER_TTL_PROTO | (__u32)(__u16)~sum << 16);
	ST32(data + 26, saddr);
	ST32(data + 30, daddr);
	return XDP_TX;
}

// The slot of a hash names a real's id.
static __always_inline int ring_select(__u32 hash, __u32 *id)
{
	__u32 slot = hash % RING_LEN;
	__u32 *cur = bpf_map_lookup_elem(&ref_ring, &slot);

	if (!cur)
		return -1;
	*id = *cur;
	return 0;
}

enum part {
	PART_VIP = 1 << 0,	// look the VIP up
	PART_COUNT = 1 << 1,	// count packets and bytes by real
};

static __always_inline int packet_balance(struct xdp_md *ctx, int parts)
{
	struct flow flow;
	struct real *real;
	__u32 id;
	__u16 len;

	if (flow_parse(ctx, &flow, &len))
		return XDP_PASS;
	if (parts & PART_VIP) {
		__u64 vip = (__u64)flow.dst | (__u64)flow.dport << 32 | (__u64)flow.proto << 48;
		__u32 *known = bpf_map_lookup_elem(&ref_vips, &vip);

		if (!known)
			return XDP_PASS;
	}
	if (ring_select(flow_hash(&flow), &id))
		return XDP_DROP;
	real = bpf_map_lookup_elem(&ref_reals, &id);
	if (!real)
		return XDP_DROP;
	if (parts & PART_COUNT) {
		struct counter *counter;

		counter = bpf_map_lookup_elem(&ref_counters, &id);
		if (counter) {
			counter->pkts++;
			counter->bytes += len;
		}
	}
	return ipip_encapsulate(ctx, OUTER_SADDR ^ (flow.src & 0xffff0000), real->dst, len,
				*(__u64 *)real->mac & 0xffffffffffffULL);
}

// The floor of every measurement: nothing but a verdict.
SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

// The floor of every encapsulating program.
SEC("xdp")
int encap_const(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + 14;

	if (data + 34 > data_end)
		return XDP_DROP;
	return ipip_encapsulate(ctx, OUTER_SADDR, OUTER_DADDR, bpf_ntohs(ip->tot_len), NEXTHOP_MAC);
}

// Hash, ring, real, encapsulation; any destination is balanced.
SEC("xdp")
int lb_ring(struct xdp_md *ctx)
{
	return packet_balance(ctx, 0);
}

// The same with a table of VIPs and counters by real.
SEC("xdp")
int lb_stats(struct xdp_md *ctx)
{
	return packet_balance(ctx, PART_VIP | PART_COUNT);
}

char _license[] SEC("license") = "Dual BSD/GPL";
