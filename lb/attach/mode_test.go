// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"testing"

	"github.com/remora-lb/remora/test/require"
)

func TestParseMode(t *testing.T) {
	for _, m := range []Mode{Auto, Native, Generic} {
		got, err := ParseMode(m.String())
		if err != nil || got != m {
			t.Errorf("%v becomes %v, %v", m, got, err)
		}
	}
	for _, tt := range []struct{ name, text string }{
		{"empty", ""}, {"upper case", "Native"}, {"space", " auto"}, {"a card's", "offload"}, {"a number", "1"}, {"what String says of others", "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseMode(tt.text)
			require.ErrorSays(t, err, `mode "`+tt.text+`" is not auto, native or generic`)
			if got != Auto {
				t.Errorf("mode %v", got)
			}
		})
	}
}

func TestModeString(t *testing.T) {
	for m, want := range map[Mode]string{Auto: "auto", Native: "native", Generic: "generic", 3: "unknown", 255: "unknown"} {
		if got := m.String(); got != want {
			t.Errorf("mode %d is %q, want %q", m, got, want)
		}
	}
}
