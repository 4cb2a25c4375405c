// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxText is how many bytes of a text a Log keeps; a text that is cut says so in a few more.
const MaxText = 1024

// bound bounds what is kept of the event: its texts come from configurations, servers and routers.
func (e *Event) bound() {
	e.Detail = ""
	for _, text := range []*string{&e.Service, &e.Source, &e.Interface, &e.From, &e.To, &e.Cause} {
		*text = shorten(*text)
	}
}

// shorten is a text that programs can be given: cut between two letters if it is long, and mended where
// it is no UTF-8, which the control API refuses to send.
func shorten(text string) string {
	n := len(text)
	if n <= MaxText {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	end := MaxText
	for end > MaxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.ToValidUTF8(text[:end], "\uFFFD") + fmt.Sprintf("... (cut, of %d bytes)", n)
}
