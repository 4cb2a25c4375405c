// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A traffic generator out of live frames: BPF_PROG_TEST_RUN makes frames of the longest size, this
// program gives each its size, flow, number and time, waits until it is due, and redirects it.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "access.h"
#include "scramble.h"
#include "traffic.h"

#define SIZES_LEN 12		// pattern of sizes; a Go constant must agree
#define HEAD_WORDS 8		// of a frame that are put back; a Go constant must agree
#define IPV4_CHECKSUM_AT 24
#define IPV4_SOURCE_AT 26
#define IPV6_SOURCE_AT 34	// its last word
#define UDP4_AT 34
#define UDP6_AT 54
#define UDP_LEN 8
#define UDP_CHECKSUM_AT 6	// in the UDP header
#define FIRST_PORT 1024
#define TIMED_EVERY 64		// power of two: one packet in so many carries its time
#define LATE_NS 1000000		// who is later does not catch up, which would be a burst
#define LONGEST_WAIT 500000	// looks at the clock, some 30 ns each

struct frame {
	__u64 words[HEAD_WORDS];
	__u32 len;		// of the whole frame, in bytes
	__u32 ip_sum;		// of the 16-bit words of the IPv4 header without source and checksum
	__u32 udp_sum;		// of what IPv6's UDP checksum covers, without what is written here
	__u32 unused;
};

// What is set before the load does not change.
volatile const __u32 out_ifindex;
volatile const __u32 is_v6;
volatile const __u32 source_mask;	// number of source addresses - 1
volatile const __u32 source_bits;	// as many as source_mask has
volatile const __u32 flow_mask;		// number of flows - 1
volatile const __u32 first_source;	// added to the number of a source
volatile const __u32 timed = 1;		// 0: packets carry no time
volatile const __u32 sizes_len = 1;	// how many of frames are used

struct frame frames[SIZES_LEN];
__u64 gap_1024ths;	// between two packets, in 1/1024 ns; 0: as fast as possible
__u32 burst = 64;	// packets from one look at the clock to the next, a power of two
__u32 stop;		// set by user space to end a run early
__u64 sent;		// since the load
__u64 call_sent;	// since user space last wrote 0
__u64 call_ns;		// when the present call began, at its first packet
__u64 due_ns;		// moves call_ns forward by what was lost
__u64 last_ns;		// the last look at the clock

static long is_due(__u32 i, void *due)
{
	return bpf_ktime_get_ns() >= *(__u64 *)due;
}

// Waits until packet i of the call is due.
static __always_inline void wait_turn(__u64 i)
{
	__u64 now, due;

	if (i & (burst - 1))
		return;
	now = bpf_ktime_get_ns();
	if (!i) {
		call_ns = now;
		due_ns = now;
	}
	due = due_ns + (i * gap_1024ths >> 10);
	if (gap_1024ths && now < due) {
		bpf_loop(LONGEST_WAIT, is_due, &due, 0);
		now = bpf_ktime_get_ns();
	} else if (gap_1024ths && now - due > LATE_NS) {
		due_ns += now - due;
	}
	last_ns = now;
}

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u32 halves(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}

static __always_inline int packet_stamp(void *data, void *data_end, struct frame *frame, __u64 i)
{
	__u32 flow = flow_no(i, flow_mask), udp_at = is_v6 ? UDP6_AT : UDP4_AT;
	__u32 source = first_source + (flow & source_mask), sum;
	__u16 port = FIRST_PORT + (flow >> source_bits);
	__u64 ns = timed && !(i & (TIMED_EVERY - 1)) ? bpf_ktime_get_ns() : 0;
	struct stamp *stamp = data + udp_at + UDP_LEN;

	if ((void *)(stamp + 1) > data_end || data + HEAD_WORDS * 8 > data_end)
		return -1;
#pragma unroll
	for (__u32 w = 0; w < HEAD_WORDS; w++)
		ST64(data + w * 8, frame->words[w]);
	ST16(data + udp_at, bpf_htons(port));
	ST32(&stamp->magic, bpf_htonl(STAMP_MAGIC));
	ST32(&stamp->number, bpf_htonl((__u32)i + 1));
	ST32(&stamp->time[0], bpf_htonl(ns >> 32));
	ST32(&stamp->time[1], bpf_htonl((__u32)ns));
	if (is_v6) {
		sum = frame->udp_sum + halves(source) + port + halves((__u32)i + 1) + halves(ns >> 32) + halves(ns);
		sum = (__u16)~fold(sum);
		ST32(data + IPV6_SOURCE_AT, bpf_htonl(source));
		ST16(data + udp_at + UDP_CHECKSUM_AT, sum ? bpf_htons(sum) : 0xffff);
		return 0;
	}
	source |= 10 << 24;
	ST32(data + IPV4_SOURCE_AT, bpf_htonl(source));
	ST16(data + IPV4_CHECKSUM_AT, bpf_htons((__u16)~fold(frame->ip_sum + halves(source))));
	return 0;
}

// Live frames are recycled with their bounds reset, but not their contents.
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u64 i = sent;
	__u32 at = i % sizes_len;
	struct frame *frame;
	int len;

	if (stop)
		return XDP_DROP;
	if (at >= SIZES_LEN)
		return XDP_ABORTED;
	wait_turn(call_sent);
	frame = &frames[at];
	len = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	if (len != (int)frame->len && bpf_xdp_adjust_tail(ctx, (int)frame->len - len))
		return XDP_ABORTED;
	if (packet_stamp((void *)(long)ctx->data, (void *)(long)ctx->data_end, frame, i))
		return XDP_ABORTED;
	sent = i + 1;
	call_sent++;
	return bpf_redirect(out_ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
