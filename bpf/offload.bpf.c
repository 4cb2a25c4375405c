// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The packet program for a card that runs XDP: packets of stable slots; all others pass up. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "types.h"
#include "card_types.h"
#include "bytes.h"
#include "target_card.h"
#include "card.h"

SEC("xdp")
int remora_card(struct xdp_md *ctx)
{
	return card_balance(ctx);
}

char _license[] SEC("license") = "Dual BSD/GPL";
