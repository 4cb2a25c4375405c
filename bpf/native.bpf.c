// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The packet program for the host: XDP in the driver, or generic. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "types.h"
#include "target_native.h"
#include "balance.h"

SEC("xdp")
int remora(struct xdp_md *ctx)
{
	return balance(ctx);
}

/* Returns the present tick, for those who compare it with those in the flow table. */
SEC("xdp")
int flow_clock(struct xdp_md *ctx __attribute__((unused)))
{
	return flow_tick();
}

char _license[] SEC("license") = "Dual BSD/GPL";
