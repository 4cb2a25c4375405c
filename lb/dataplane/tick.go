// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// jiffy is the kernel's unit of time: what its coarse clocks advance by.
func jiffy() (time.Duration, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return 0, fmt.Errorf("ask for the kernel's tick: %v", err)
	}
	return time.Duration(res.Nano()), nil
}

// tickOf is a tick of the flow table, the power of two of jiffies that is nearest to a second.
func tickOf(jiffy time.Duration) (length time.Duration, shift uint32) {
	shift = uint32(bits.Len64(uint64(time.Second / jiffy * 3 / 4)))
	return jiffy << shift, shift
}
