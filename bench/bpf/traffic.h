// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once
// What is behind the UDP header of a bench's packet. The kernel's pktgen writes the same 16 bytes, with
// the time of day in place of the monotonic clock.

#define STAMP_MAGIC 0x72656d6f		// "remo"
#define PKTGEN_MAGIC 0xbe9be955		// net/core/pktgen.c

// In network order. number is counted by each generator from 1 on. ours: the two words of time are
// ns, both 0 for packets whose time is not taken. pktgen's: seconds, then microseconds.
struct stamp {
	__be32 magic;
	__be32 number;
	__be32 time[2];
};
