// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"testing"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

// Explain says what it was asked.
func (f *fakeDaemon) Explain(_ context.Context, q Explanation) ([]byte, error) {
	if len(q.Frame) == 0 {
		if _, err := f.named(q.Selection); err != nil {
			return nil, err
		}
	}
	return fmt.Appendf(nil, "%x %s %d", q.Frame, q.Selection, q.Examples), nil
}

func TestExplain(t *testing.T) {
	c := serve(t, &fakeDaemon{}).client(t)
	for _, tc := range []struct {
		name string
		req  *remorav1.ExplainRequest
		want string
		code Code
	}{
		{name: "frame", req: &remorav1.ExplainRequest{Frame: []byte{1, 2, 3}}, want: "010203 invalid IP 0"},
		{name: "backend", req: &remorav1.ExplainRequest{Backend: shared.String(), Examples: 7}, want: " 10.20.0.11 7"},
		{name: "backend of a VIP", req: &remorav1.ExplainRequest{Backend: shared.String(), Vip: vip4.String()}, want: " 192.0.2.10:80/tcp 10.20.0.11 0"},
		{name: "no such backend", req: &remorav1.ExplainRequest{Backend: "10.20.0.99"}, code: CodeNotFound},
		{name: "nothing", req: &remorav1.ExplainRequest{}, code: CodeInvalid},
		{name: "both", req: &remorav1.ExplainRequest{Frame: []byte{1}, Backend: shared.String()}, code: CodeInvalid},
		{name: "bad VIP", req: &remorav1.ExplainRequest{Backend: shared.String(), Vip: "x"}, code: CodeInvalid},
		{name: "long frame", req: &remorav1.ExplainRequest{Frame: make([]byte, maxFrameBytes+1)}, code: CodeInvalid},
		{name: "many examples", req: &remorav1.ExplainRequest{Backend: shared.String(), Examples: maxExamples + 1}, code: CodeInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, err := c.Explain(t.Context(), tc.req)
			if tc.code != CodeInternal {
				var e *Error
				if !errors.As(err, &e) || e.Code != tc.code {
					t.Fatalf("error %v, want code %d", err, tc.code)
				}
				return
			}
			require.NoError(t, err)
			if string(res.Report) != tc.want {
				t.Errorf("answer %q, want %q", res.Report, tc.want)
			}
		})
	}
}
