// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The programs beside the balancers of the churn bench: generate turns user space's orders into live
// frames and sends each to the balancer that its order names; sink, attached where frames come back,
// notes the outer destination of each. What the packets are, and whether they went the right way, is
// for user space to say.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "access.h"

#define ORDERS_LEN 65536	// power of two; a Go constant must agree
#define BALANCERS_LEN 2		// a Go constant must agree

// Offsets in the frame: Ethernet, IPv4 without options, TCP.
#define SOURCE_AT 26
#define PORT_AT 34
#define SEQUENCE_AT 38
#define FLAGS_AT 47
#define FRAME_WORDS 8
// What the balancer puts behind the Ethernet header: an IPv4 header.
#define OUTER_LEN 20
#define OUTER_PROTOCOL_AT 23
#define OUTER_DESTINATION_AT 30

struct order {
	__u32 source;	// IPv4 address, as bytes in memory
	__u16 port;	// of the source, as bytes in memory
	__u8 flags;	// of TCP
	__u8 balancer;	// the way to take
};

// By an order's number, and so in arrival: its number and the outer destination of its frame.
struct arrival {
	__u32 number;
	__u32 destination;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ORDERS_LEN);
	__type(key, __u32);
	__type(value, struct order);
} orders SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ORDERS_LEN);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

volatile const __u32 out_ifindex[BALANCERS_LEN];	// the generator's ends of the pairs

__u64 frame_words[FRAME_WORDS];	// the frame without what an order says
__u32 next_order;		// number of the order to be sent next
__u32 end_order;		// number behind the last one

// Live frames are recycled with their bounds reset, but not their contents. A run that a signal cut
// off is begun again, so the program itself must know where it was.
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u32 number = next_order, at = number % ORDERS_LEN;
	struct order *order;

	if (number == end_order)
		return XDP_DROP;
	order = bpf_map_lookup_elem(&orders, &at);
	if (!order || data + FRAME_WORDS * 8 > data_end)
		return XDP_ABORTED;
	next_order = number + 1;
#pragma unroll
	for (__u32 i = 0; i < FRAME_WORDS; i++)
		ST64(data + i * 8, frame_words[i]);
	ST32(data + SOURCE_AT, order->source);
	ST16(data + PORT_AT, order->port);
	ST32(data + SEQUENCE_AT, number);
	*(volatile __u8 *)(data + FLAGS_AT) = order->flags;
	return bpf_redirect(out_ifindex[order->balancer % BALANCERS_LEN], 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct arrival *arrival;
	__u32 number, at;

	if (data + OUTER_LEN + SEQUENCE_AT + 4 > data_end)
		return XDP_DROP;
	if (LD16(data + 12) != bpf_htons(ETH_P_IP) ||
	    *(volatile __u8 *)(data + OUTER_PROTOCOL_AT) != IPPROTO_IPIP)
		return XDP_DROP;
	number = LD32(data + OUTER_LEN + SEQUENCE_AT);
	at = number % ORDERS_LEN;
	arrival = bpf_map_lookup_elem(&arrivals, &at);
	if (!arrival)
		return XDP_ABORTED;
	// User space reads after the run has ended, so the two words need not be one.
	arrival->destination = LD32(data + OUTER_DESTINATION_AT);
	arrival->number = number;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
