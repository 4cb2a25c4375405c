// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Katran's choice of a slot: Bob Jenkins' lookup3 (public domain), in the form of the kernel's
 * include/linux/jhash.h, over the words of the packet as they lie in memory.
 */
#pragma once

#define HASH_MAX_VIPS 512
#define HASH_SEED_ADDR HASH_MAX_VIPS
#define HASH_SEED_FLOW (HASH_MAX_VIPS * RING_SIZE_DEFAULT)
#define JHASH_INIT 0xdeadbeef

static __always_inline __u32 rol32(__u32 x, int n)
{
	return x << n | x >> (32 - n);
}

static __always_inline __u32 jhash_final(__u32 a, __u32 b, __u32 c)
{
	c ^= b; c -= rol32(b, 14);
	a ^= c; a -= rol32(c, 11);
	b ^= a; b -= rol32(a, 25);
	c ^= b; c -= rol32(b, 16);
	a ^= c; a -= rol32(c, 4);
	b ^= a; b -= rol32(a, 14);
	c ^= b; c -= rol32(b, 24);
	return c;
}

static __always_inline __u32 flow_hash(__u32 fold, __u32 ports)
{
	__u32 init = JHASH_INIT + 8 + HASH_SEED_FLOW;

	return jhash_final(fold + init, ports + init, init);
}

/* An IPv6 source address, folded to the word that flow_hash takes. */
static __always_inline __u32 addr6_hash(void *p)
{
	__u32 a = JHASH_INIT + 16 + HASH_SEED_ADDR, b = a, c = a;

	a += LD32(p); b += LD32(p + 4); c += LD32(p + 8);
	a -= c; a ^= rol32(c, 4); c += b;
	b -= a; b ^= rol32(a, 6); a += c;
	c -= b; c ^= rol32(b, 8); b += a;
	a -= c; a ^= rol32(c, 16); c += b;
	b -= a; b ^= rol32(a, 19); a += c;
	c -= b; c ^= rol32(b, 4); b += a;
	a += LD32(p + 12);
	return jhash_final(a, b, c);
}

/* What addr6_hash makes of 16 zero bytes. */
#define ADDR6_ZEROS_HASH 0xfccf6f67

/* hash mod 65537 without a division: 65536 is -1. A branch would go wrong for half of all flows. */
static __always_inline __u32 mod_65537(__u32 hash)
{
	__s32 d = (__s32)(hash & 0xffff) - (__s32)(hash >> 16);
	__s32 negative = d >> 31;

	/* BPF has no conditional move: keep the mask arithmetic. */
	asm volatile("" : "+r"(negative));
	return d + (negative & RING_SIZE_DEFAULT);
}

static __always_inline __u32 slot_index(__u32 hash, __u32 size)
{
	if (likely(size == RING_SIZE_DEFAULT))
		return mod_65537(hash);
	return (__u64)hash * size >> 32;
}
