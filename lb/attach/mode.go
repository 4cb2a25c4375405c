// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import "fmt"

// Mode is how an XDP program is run on an interface.
type Mode uint8

const (
	// Auto asks for the best mode that attaches.
	Auto Mode = iota
	// Native runs the program in the driver.
	Native
	// Generic runs it in the stack, on any interface, several times slower.
	Generic
)

var modeNames = [...]string{"auto", "native", "generic"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "unknown"
}

// ParseMode reads the text form.
func ParseMode(s string) (Mode, error) {
	for i, name := range modeNames {
		if s == name {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("mode %q is not auto, native or generic", s)
}
