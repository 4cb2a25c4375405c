// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once
// Loads and stores of packet memory at any alignment, which the JITs of x86-64 and arm64 take as
// they are. Volatile, so that the compiler neither splits nor joins them: the cost of a program
// must not depend on the compiler's mood.

#define LD16(p) (*(volatile __u16 *)(p))
#define LD32(p) (*(volatile __u32 *)(p))
#define LD64(p) (*(volatile __u64 *)(p))
#define ST16(p, v) (*(volatile __u16 *)(p) = (v))
#define ST32(p, v) (*(volatile __u32 *)(p) = (v))
#define ST64(p, v) (*(volatile __u64 *)(p) = (v))
