// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own, which ends with f: f may change the thread's CPU, class
// and namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// fifoPriority is above all that is not real-time; its value does not matter otherwise.
const fifoPriority = 10

// settle pins the calling thread to a CPU (-1: the last one allowed) and asks for the real-time
// class. What is refused does not stop a measurement, it makes it noisier: the notes say what.
func settle(cpu int, fifo bool) (notes []string) {
	var set unix.CPUSet
	if cpu < 0 {
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return []string{fmt.Sprintf("not pinned to a CPU: %v", err)}
		}
		cpu = lastCPU(&set)
	}
	set.Zero()
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		notes = append(notes, fmt.Sprintf("not pinned to CPU %d: %v", cpu, err))
	}
	if !fifo {
		return append(notes, "not in the real-time class, as asked")
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: fifoPriority}, 0); err != nil {
		notes = append(notes, fmt.Sprintf("not in the real-time class: %v", err))
	}
	return notes
}

func lastCPU(set *unix.CPUSet) int {
	last := 0
	for i, left := 0, set.Count(); left > 0; i++ {
		if set.IsSet(i) {
			last = i
			left--
		}
	}
	return last
}
