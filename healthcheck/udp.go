// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// UDP is a probe that sends one datagram and expects one in return.
type UDP struct {
	// Send is what is sent: text, or hexadecimal digits after "hex:". It may be empty.
	Send string
	// Expect is what the answer must contain, in the same form. Default: any answer passes.
	Expect string
}

// maxDatagram is the longest payload of a UDP packet over IPv4.
const maxDatagram = 65507

// Validate implements Kind.
func (c UDP) Validate() error {
	var errs []error
	for _, f := range []struct{ name, text string }{{"Send", c.Send}, {"Expect", c.Expect}} {
		b, err := payload(f.text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %v", f.name, err))
		}
		if len(b) > maxDatagram {
			errs = append(errs, fmt.Errorf("%s: %d bytes are more than the %d of a datagram", f.name, len(b), maxDatagram))
		}
	}
	return errors.Join(errs...)
}

// payload reads text, or hexadecimal digits after "hex:".
func payload(s string) ([]byte, error) {
	digits, ok := strings.CutPrefix(s, "hex:")
	if !ok {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("%q is not hexadecimal", digits)
	}
	return b, nil
}

// Probe implements Kind.
func (c UDP) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make UDP probe: %v", err)
	}
	send, _ := payload(c.Send) // both were validated
	expect, _ := payload(c.Expect)
	return &probe{kind: c, ask: func(ctx context.Context, t Target) (answer, error) {
		return answer{}, askUDP(ctx, t, send, expect)
	}}, nil
}

func askUDP(ctx context.Context, t Target, send, expect []byte) error {
	conn, release, err := t.dialUDP(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, err := conn.Write(send); err != nil {
		return during("send the datagram", err)
	}
	buf := make([]byte, maxDatagram)
	n, err := conn.Read(buf)
	if err != nil {
		return during("read the answer", err)
	}
	if !bytes.Contains(buf[:n], expect) {
		return fail(BadBody, "the answer, %s, does not contain %s", excerpt(buf[:n]), excerpt(expect))
	}
	return nil
}
