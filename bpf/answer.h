// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Answers that the program sends by itself, to echo requests and packets that are too big: their budget. */
#pragma once

/* Whether this CPU may send one more answer in this tick. */
static __always_inline int answer_admits(void)
{
	struct answer_guard *guard = answer_guard_get();
	__u32 tick = flow_tick();

	if (!guard)
		return 0; /* never: the index is constant */
	if (guard->tick != tick) {
		guard->tick = tick;
		guard->answers = 0;
	}
	if (guard->answers >= answer_settings.limit)
		return 0;
	guard->answers++;
	return 1;
}
