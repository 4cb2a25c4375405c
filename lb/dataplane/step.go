// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

// step is one of those by which a generation comes into use, or takes the place of another.
type step string

const (
	stepMake     step = "make maps and programs"
	stepFill     step = "fill the maps"
	stepCount    step = "copy counters"
	stepPin      step = "pin a map or program"
	stepAttach   step = "attach"
	stepPinLink  step = "pin the link"
	stepUpdate   step = "update the link"
	stepDescribe step = "describe the attachment"
	stepPoint    step = "point to the generation"
	stepRemove   step = "remove a generation"
)

// faults lets steps fail, in tests: an error that it returns takes the place of what the step would do.
// Nil is none.
type faults func(step) error

func (f faults) at(s step) error {
	if f == nil {
		return nil
	}
	return f(s)
}
