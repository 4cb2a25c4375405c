// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

// Explanation is what is to be explained: a frame, or, if that is empty, a backend.
type Explanation struct {
	Frame []byte
	Selection
	// Examples are wanted on each VIP of the backend.
	Examples int
}

const (
	// maxFrameBytes is more than any frame has.
	maxFrameBytes = 64<<10 + 64
	// maxExamples bounds the time that a call takes.
	maxExamples = 1000
)

// Explain implements the API.
func (c *calls) Explain(ctx context.Context, req *connect.Request[remorav1.ExplainRequest]) (*connect.Response[remorav1.ExplainResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, c.bounds.call)
	defer cancel()
	q, err := explanationFromAPI(req.Msg)
	if err != nil {
		return nil, c.fail(ctx, "Explain", err)
	}
	report, err := c.daemon.Explain(ctx, q)
	if err != nil {
		return nil, c.failAbout(ctx, "Explain", q.Selection, err)
	}
	return connect.NewResponse(&remorav1.ExplainResponse{Report: report}), nil
}

func explanationFromAPI(m *remorav1.ExplainRequest) (q Explanation, err error) {
	switch {
	case len(m.Frame) > maxFrameBytes:
		return q, &Error{Code: CodeInvalid, Object: "frame", Problem: fmt.Sprintf("a frame of %d bytes; none has more than %d", len(m.Frame), maxFrameBytes)}
	case m.Examples > maxExamples:
		return q, &Error{Code: CodeInvalid, Object: "examples", Problem: fmt.Sprintf("%d examples, not 0 to %d", m.Examples, maxExamples)}
	case len(m.Frame) != 0 && (m.Backend != "" || m.Vip != ""):
		return q, &Error{Code: CodeInvalid, Object: "frame", Problem: "a frame and a backend", Cure: "ask for one after the other"}
	case len(m.Frame) != 0:
		return Explanation{Frame: m.Frame}, nil
	}
	q.Examples = int(m.Examples)
	q.Selection, err = selectionFromAPI(m)
	return q, err
}
