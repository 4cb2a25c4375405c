// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reading and writing packet bytes, and sums over them. Packets may be read and written at any
 * alignment on x86, arm64 and the NFP; volatile keeps the compiler from splitting an access or
 * merging two.
 */
#pragma once

#define LD8(p) (*(volatile __u8 *)(p))
#define LD16(p) (*(volatile __u16 *)(p))
#define LD32(p) (*(volatile __u32 *)(p))
#define LD64(p) (*(volatile __u64 *)(p))
#define ST8(p, v) (*(volatile __u8 *)(p) = (v))
#define ST16(p, v) (*(volatile __u16 *)(p) = (v))
#define ST32(p, v) (*(volatile __u32 *)(p) = (v))
#define ST64(p, v) (*(volatile __u64 *)(p) = (v))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* One's-complement sum of 16-bit words, folded; RFC 1071. */
static __always_inline __u32 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* A 16-bit word of a checksummed header changes: RFC 1624 equation 3. */
static __always_inline __u16 checksum_adjust(__u16 sum, __u16 from, __u16 to)
{
	return ~sum_fold((__u16)~sum + (__u16)~from + to);
}
