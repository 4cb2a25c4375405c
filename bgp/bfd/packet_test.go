// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"bytes"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// wire is a packet as RFC 5880 section 4.1 draws it: version 1, diagnostic 3, state up, poll.
func wire() []byte {
	return []byte{
		0x23, 0xe0, 3, 24,
		0x01, 0x02, 0x03, 0x04,
		0x05, 0x06, 0x07, 0x08,
		0x00, 0x01, 0x86, 0xa0, // 100 ms
		0x00, 0x00, 0xc3, 0x50, // 50 ms
		0, 0, 0, 0,
	}
}

func TestPacket(t *testing.T) {
	want := packet{
		state: Up, diag: diagNeighbourSignaled, poll: true, multiplier: 3, mine: 0x01020304, yours: 0x05060708,
		desiredTx: 100 * time.Millisecond, requiredRx: 50 * time.Millisecond,
	}
	got, err := decode(wire())
	require.NoError(t, err)
	if got != want {
		t.Errorf("decoded %+v, want %+v", got, want)
	}
	if b := want.encode(); !bytes.Equal(b, wire()) {
		t.Errorf("encoded % x, want % x", b, wire())
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		says   string
	}{
		{"nothing", func([]byte) []byte { return nil }, "0 bytes"},
		{"short", func(b []byte) []byte { return b[:23] }, "23 bytes"},
		{"other version", func(b []byte) []byte { b[0] = 0x43; return b }, "version 2"},
		{"length too small", func(b []byte) []byte { b[3] = 23; return b }, "length field 23"},
		{"length too large", func(b []byte) []byte { b[3] = 25; return b }, "length field 25"},
		{"authenticated", func(b []byte) []byte { b[1] |= flagAuth; return b }, "authenticated"},
		{"multipoint", func(b []byte) []byte { b[1] |= flagMultipoint; return b }, "multipoint"},
		{"poll and final", func(b []byte) []byte { b[1] |= flagFinal; return b }, "poll and final"},
		{"no multiplier", func(b []byte) []byte { b[2] = 0; return b }, "multiplier 0"},
		{"no discriminator", func(b []byte) []byte { copy(b[4:8], make([]byte, 4)); return b }, "discriminator is 0"},
		{"up without ours", func(b []byte) []byte { copy(b[8:12], make([]byte, 4)); return b }, "state up without"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := decode(tc.change(wire()))
			require.ErrorSays(t, err, "decode BFD packet", tc.says)
		})
	}
}

// FuzzDecode checks that what is decoded is encoded to the same again.
func FuzzDecode(f *testing.F) {
	f.Add(wire())
	f.Add(wire()[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(p.encode())
		if err != nil || again != p {
			t.Errorf("%+v became %+v, error %v", p, again, err)
		}
	})
}
