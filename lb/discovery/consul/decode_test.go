// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/remora-lb/remora/test/require"
)

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		ids        []string
		bad        string
	}{
		{"empty", "[]", nil, ""},
		{"empty with space", " [ \n] ", nil, ""},
		{"one", `[{"Service":{"ID":"a"}}]`, []string{"a"}, ""},
		{"two with space", "[ {\"Service\":{\"ID\":\"a\"}} ,\n{\"Service\":{\"ID\":\"b\"}} ]\n", []string{"a", "b"}, ""},
		{"brackets and quotes in a string", `[{"Service":{"ID":"}]\"\\"}},{"Service":{"ID":"b"}}]`, []string{`}]"\`, "b"}, ""},
		{"lists in objects", `[{"Service":{"ID":"a","Tags":["x","y"]},"Checks":[{"CheckID":"c"}]}]`, []string{"a"}, ""},
		{"nothing", "", nil, "ends too early"},
		{"null", "null", nil, `"null" in place of a list`},
		{"an object", `{"Service":{}}`, nil, "in place of a list"},
		{"no end", `[{"Service":{"ID":"a"}}`, nil, "ends too early"},
		{"no end after a comma", `[{"Service":{"ID":"a"}},`, nil, "ends too early"},
		{"no end of a string", `[{"Service":{"ID":"a`, nil, "ends too early"},
		{"no end of a string, at a slash", `[{"Service":{"ID":"a\`, nil, "ends too early"},
		{"no end of an object", `[{"Service":{"ID":"a"}`, nil, "ends too early"},
		{"nothing but the beginning", `[`, nil, "ends too early"},
		{"a number", `[1]`, nil, `'1' where an element should begin`},
		{"a comma too many", `[{},]`, nil, `']' where an element should begin`},
		{"no comma", `[{}{}]`, nil, `'{' between two elements`},
		{"more after the list", `[]<html>`, nil, `"<html>" after the list`},
		{"brackets that do not match", `[{"Service":[}}]`, nil, "read instance 1 of the list"},
		{"a wrong type", `[{},{"Service":{"Port":"80"}}]`, nil, "read instance 2 of the list"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDecoder()
			for range 2 { // the second time from memory
				list, err := d.decode([]byte(tc.body))
				if tc.bad != "" {
					require.ErrorSays(t, err, tc.bad)
					continue
				}
				require.NoError(t, err)
				var ids []string
				for _, i := range list {
					ids = append(ids, i.Service.ID)
				}
				if !slices.Equal(ids, tc.ids) {
					t.Errorf("ids %q, want %q", ids, tc.ids)
				}
			}
		})
	}
}

// TestDecodeAgain: a decoder that has read lists before reads a list as a new one does.
func TestDecodeAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDecoder()
		for range 3 {
			body, err := json.Marshal(rapid.SliceOfN(rapid.Custom(drawInstance), 0, 6).Draw(t, "instances"))
			if err != nil {
				t.Fatal(err)
			}
			var want []Instance
			if err := json.Unmarshal(body, &want); err != nil {
				t.Fatal(err)
			}
			got, err := d.decode(body)
			if err != nil {
				t.Fatal(err)
			}
			if len(got)+len(want) > 0 && !cmp.Equal(got, want) {
				t.Fatal(cmp.Diff(got, want))
			}
		}
	})
}

// FuzzDecode: what is taken, Go's own reader takes, too, with the same result.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`[]`, `[{"Service":{"ID":"a"}}]`, `[{"Service":{"ID":"}\"\\"}} , {}]`, `[{]`, `[{"a":"\`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := newDecoder()
		got, err := d.decode(body)
		if err != nil {
			return
		}
		var want []Instance
		require.NoError(t, json.Unmarshal(body, &want))
		if len(got)+len(want) > 0 && !cmp.Equal(got, want) {
			t.Error(cmp.Diff(got, want))
		}
	})
}
