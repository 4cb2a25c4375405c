// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

const serverID = 0x01020304

// onTheWire is serverID in little-endian order, as options print it.
const onTheWire = "04030201"

func attached(t *testing.T, cfg Config) *TCPID {
	t.Helper()
	p, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	require.NoError(t, p.Attach())
	return p
}

func counters(t *testing.T, p *TCPID) Counters {
	t.Helper()
	c, err := p.Counters()
	require.NoError(t, err)
	return c
}

// assertCounters is for what no further segment changes.
func assertCounters(t *testing.T, p *TCPID, want Counters) {
	t.Helper()
	if diff := cmp.Diff(want, counters(t, p)); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

// TestIDs: the server says its id until the client names it, and the client names it from then on.
func TestIDs(t *testing.T) {
	w := newWorld(t)
	for name, six := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			server := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
			client := attached(t, Config{Cgroup: w.client.cgroup})
			c := w.connect(t, w.listen(t, six))
			for range 5 {
				c.exchange(t)
			}
			for i, s := range w.segments(t, c.server) {
				want := ""
				switch {
				case s.syn && s.ack:
					want = "b6:" + onTheWire
				case s.fromClient && !s.syn:
					want = "b7:" + onTheWire
				}
				if got := s.ids(); got != want {
					t.Errorf("segment %d, %v: %q, want %q", i, s, got, want)
				}
			}
			assertCounters(t, server, Counters{Handed: 1, Confirmed: 1})
			// Acknowledgements may still be sent.
			var named uint64
			waitFor(t, "counters of the client", func() error {
				named = 0
				for _, s := range w.segments(t, c.server) {
					if s.fromClient && !s.syn {
						named++
					}
				}
				if got, want := counters(t, client), (Counters{Learned: 1, Named: named}); got != want {
					return fmt.Errorf("%+v, want %+v", got, want)
				}
				return nil
			})
			if named < 6 { // the handshake's, and those of the exchanges
				t.Errorf("only %d segments of the client are seen", named)
			}
			require.NoError(t, server.Close())
			require.NoError(t, client.Close())
		})
	}
}

// TestServerAlone: a client that knows nothing of ids is told some times, and is not bothered for ever.
func TestServerAlone(t *testing.T) {
	w := newWorld(t)
	server := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	c := w.connect(t, w.listen(t, false))
	for range 20 {
		c.exchange(t)
	}
	var said []bool
	for _, s := range w.segments(t, c.server) {
		if !s.fromClient {
			said = append(said, s.ids() == "b6:"+onTheWire)
		} else if s.ids() != "" {
			t.Errorf("the client says %q in %v", s.ids(), s)
		}
	}
	const first = 1 + 8 // the SYN-ACK, and as bpf/tcpid.bpf.c says
	if len(said) < first+5 {
		t.Fatalf("only %d segments of the server are seen", len(said))
	}
	for i, is := range said {
		if is != (i < first) {
			t.Errorf("segment %d of the server has the id: %t", i, is)
		}
	}
	assertCounters(t, server, Counters{Handed: first})
}

// TestClientAlone: a client whose server says nothing names nobody.
func TestClientAlone(t *testing.T) {
	w := newWorld(t)
	client := attached(t, Config{Cgroup: w.client.cgroup})
	c := w.connect(t, w.listen(t, false))
	c.exchange(t)
	assertNoIDs(t, w.segments(t, c.server))
	assertCounters(t, client, Counters{})
}

func assertNoIDs(t *testing.T, all []segment) {
	t.Helper()
	if len(all) < 4 {
		t.Fatalf("only %d segments are seen", len(all))
	}
	for _, s := range all {
		if s.ids() != "" {
			t.Errorf("%v has %q", s, s.ids())
		}
	}
}

// TestNoneWanted: a client that refuses ids in its SYN is told none, neither then nor later.
func TestNoneWanted(t *testing.T) {
	w := newWorld(t)
	server := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	refuse(t, w.client.cgroup)
	c := w.connect(t, w.listen(t, false))
	for range 3 {
		c.exchange(t)
	}
	refused := false
	for _, s := range w.segments(t, c.server) {
		refused = refused || s.syn && strings.HasPrefix(s.ids(), "b8:")
		if !s.fromClient && s.ids() != "" {
			t.Errorf("the server says %q in %v", s.ids(), s)
		}
	}
	if !refused {
		t.Error("the client did not refuse")
	}
	assertCounters(t, server, Counters{NoneWanted: 1})
}

// refuse has clients put option 0xb8 in their segments. The numbers are those of linux/bpf.h.
func refuse(t *testing.T, cgroup string) {
	t.Helper()
	const connecting, optionLen, optionWrite, askFlag = 3, 14, 15, 1 << 6
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SockOps, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word), // op
		asm.JEq.Imm(asm.R7, connecting, "connecting"),
		asm.JEq.Imm(asm.R7, optionLen, "len"),
		asm.JEq.Imm(asm.R7, optionWrite, "write"),
		asm.Ja.Label("end"),
		asm.Mov.Imm(asm.R2, askFlag).WithSymbol("connecting"),
		asm.FnSockOpsCbFlagsSet.Call(),
		asm.Ja.Label("end"),
		asm.Mov.Imm(asm.R2, 2).WithSymbol("len"),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnReserveHdrOpt.Call(),
		asm.Ja.Label("end"),
		asm.StoreImm(asm.RFP, -8, 0x02b8, asm.Half).WithSymbol("write"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Imm(asm.R3, 2),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnStoreHdrOpt.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
		asm.Return(),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: p})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
}

// TestForeign: connections from before the id was changed show, and new ones have the new id.
func TestForeign(t *testing.T) {
	w := newWorld(t)
	first := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID + 1})
	attached(t, Config{Cgroup: w.client.cgroup})
	l := w.listen(t, false)
	c := w.connect(t, l)
	require.NoError(t, first.Close())
	second := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	c.exchange(t)
	got := counters(t, second)
	if got.Foreign == 0 || got != (Counters{Foreign: got.Foreign}) {
		t.Errorf("old connection: %+v", got)
	}
	w.connect(t, l).exchange(t)
	if got := counters(t, second); got.Handed != 1 || got.Confirmed != 1 {
		t.Errorf("new connection: %+v", got)
	}
}

// TestRetransmission: what is sent again names the server again, and SYNs never do.
func TestRetransmission(t *testing.T) {
	w := newWorld(t)
	attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	attached(t, Config{Cgroup: w.client.cgroup})
	l := w.listen(t, false)

	w.forward(t, false)
	type result struct {
		c   *connection
		err error
	}
	connected := make(chan result, 1)
	go func() {
		c, err := w.dial(l)
		connected <- result{c, err}
	}()
	w.seen(t, l, 2, func(s segment) bool { return s.syn && !s.ack })
	w.forward(t, true)
	r := <-connected
	require.NoError(t, r.err)
	c := r.c
	t.Cleanup(func() { c.conn.Close() })
	c.exchange(t)

	w.forward(t, false)
	_, err := c.conn.Write([]byte("again\n"))
	require.NoError(t, err)
	w.seen(t, l, 2, func(s segment) bool { return s.fromClient && s.payload == "again\n" })
	w.forward(t, true)
	c.receive(t, "again\n")

	syns, again := 0, 0
	for _, s := range w.segments(t, c.server) {
		want := ""
		switch {
		case s.syn && s.ack:
			want = "b6:" + onTheWire
		case s.syn:
			syns++
		case s.fromClient:
			want = "b7:" + onTheWire
			if s.payload == "again\n" {
				again++
			}
		}
		if got := s.ids(); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
	if syns < 2 || again < 2 {
		t.Errorf("%d SYNs, the data %d times: nothing was sent again", syns, again)
	}
}

// TestOlderSockets: connections and listening sockets from before stay as they were.
func TestOlderSockets(t *testing.T) {
	w := newWorld(t)
	l := w.listen(t, false)
	old := w.connect(t, l)
	old.exchange(t)
	server := attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	client := attached(t, Config{Cgroup: w.client.cgroup})
	old.exchange(t)
	w.connect(t, l).exchange(t)
	assertNoIDs(t, w.segments(t, l))
	assertCounters(t, server, Counters{})
	assertCounters(t, client, Counters{})

	newer := w.connect(t, w.listen(t, false))
	newer.exchange(t)
	assertCounters(t, server, Counters{Handed: 1, Confirmed: 1})
}

// TestFullSegments: segments that are as long as the link takes have room for the option.
func TestFullSegments(t *testing.T) {
	w := newWorld(t)
	attached(t, Config{Cgroup: w.server.cgroup, ServerID: serverID})
	attached(t, Config{Cgroup: w.client.cgroup})
	c := w.connect(t, w.listen(t, false))
	text := strings.Repeat("x", 20000) + "\n"
	_, err := c.conn.Write([]byte(text))
	require.NoError(t, err)
	c.receive(t, text)
	longest := 0
	for _, s := range w.segments(t, c.server) {
		longest = max(longest, s.packetLen)
		if s.fromClient && !s.syn && s.ids() != "b7:"+onTheWire {
			t.Errorf("%v: %q", s, s.ids())
		}
	}
	if longest > 1500 || longest < 1400 {
		t.Errorf("the longest packet has %d bytes", longest)
	}
}

// TestPin: what is pinned works on, until it is removed.
func TestPin(t *testing.T) {
	w := newWorld(t)
	bpffs := t.TempDir()
	require.NoError(t, unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(bpffs, 0)) })
	cfg := Config{Cgroup: w.server.cgroup, ServerID: serverID}
	p, err := New(cfg)
	require.NoError(t, err)
	require.ErrorSays(t, p.Pin(bpffs), "not attached")
	require.NoError(t, p.Attach())
	require.NoError(t, p.Pin(bpffs))
	require.NoError(t, p.Close())

	second, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { second.Close() })
	require.ErrorSays(t, second.Attach(), "says ids already")
	attached(t, Config{Cgroup: w.client.cgroup})
	w.connect(t, w.listen(t, false)).exchange(t)

	got, err := Unpin(bpffs, w.server.cgroup)
	require.NoError(t, err)
	if diff := cmp.Diff(Counters{Handed: 1, Confirmed: 1}, got); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if left, err := filepath.Glob(filepath.Join(bpffs, "remora*")); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	_, err = Unpin(bpffs, w.server.cgroup)
	require.ErrorSays(t, err, "nothing is pinned")
	// The link ends some time after its last name is gone.
	waitFor(t, "attachment in the place of the pinned one", second.Attach)
}

func TestNewRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ cgroup, says string }{
		"none":      {"", "Cgroup: empty"},
		"no folder": {"/nowhere", `open "/nowhere"`},
		"no cgroup": {os.TempDir(), "not a cgroup of version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{Cgroup: tc.cgroup})
			require.ErrorSays(t, err, tc.says)
		})
	}
}

func (s segment) String() string {
	return fmt.Sprintf("segment of client %t, SYN %t, ACK %t, %d bytes", s.fromClient, s.syn, s.ack, len(s.payload))
}
