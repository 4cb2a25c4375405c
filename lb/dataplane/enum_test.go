// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// enumNames reads the names of an enum of bpf/types.h, up to the one that gives its length.
func enumNames(t *testing.T, enum, prefix string) []string {
	t.Helper()
	source, err := os.ReadFile("../../bpf/types.h")
	require.NoError(t, err)
	body := regexp.MustCompile(`(?s)\nenum ` + enum + ` \{(.*?)\n\};`).FindSubmatch(source)
	if body == nil {
		t.Fatalf("bpf/types.h has no enum %s", enum)
	}
	text := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(body[1]), "")
	end := strings.ToUpper(enum) + "_LEN"
	var names []string
	for part := range strings.SplitSeq(text, ",") {
		name := strings.TrimSpace(part)
		if name == end {
			return names
		}
		short, ok := strings.CutPrefix(name, prefix)
		if !ok || strings.Contains(short, "=") {
			t.Fatalf("enum %s has %q before %s", enum, name, end)
		}
		names = append(names, short)
	}
	t.Fatalf("enum %s has no %s", enum, end)
	return nil
}

func TestReasonsAreThoseOfTheProgram(t *testing.T) {
	var want []string
	for r := range lb.ReasonLen {
		want = append(want, strings.ToUpper(r.String()))
	}
	wantEqual(t, "enum reason", enumNames(t, "reason", "REASON_"), want)
}

func TestFlowEventsAreThoseOfTheProgram(t *testing.T) {
	var want []string
	for e := range lb.FlowEventLen {
		want = append(want, strings.ToUpper(e.String()))
	}
	wantEqual(t, "enum flow_event", enumNames(t, "flow_event", "FLOW_"), want)
	if got := lb.FlowEventLen.String(); got != "unknown" {
		t.Errorf("no event is called %q", got)
	}
}

func TestSlotStatesAreThoseOfTheProgram(t *testing.T) {
	var want []string
	for s := range lb.SlotStateLen {
		want = append(want, strings.ToUpper(s.String()))
	}
	wantEqual(t, "enum slot_state", enumNames(t, "slot_state", "SLOT_"), want)
}

func TestEncapsAreThoseOfTheProgram(t *testing.T) {
	kinds := []struct {
		name string
		kind uint16
	}{
		{"NONE", encapNone}, {"IPIP4", encapIPIP4}, {"IPIP6", encapIPIP6}, {"GUE4", encapGUE4}, {"GUE6", encapGUE6},
		{"GUE4_SUM", encapGUE4Sum}, {"GUE6_SUM", encapGUE6Sum}, {"LOCAL", encapLocal},
	}
	var want []string
	for i, k := range kinds {
		if int(k.kind) != i {
			t.Errorf("%s is %d, want %d", k.name, k.kind, i)
		}
		want = append(want, k.name)
	}
	wantEqual(t, "enum encap", enumNames(t, "encap", "ENCAP_"), want)
}
