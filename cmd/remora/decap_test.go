// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/decap"
	"github.com/remora-lb/remora/test/require"
)

func TestDecapMistakes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"no interface", nil, []string{"--interface is missing", "--interface eth0"}},
		{"argument", []string{"eth0"}, []string{`unexpected argument "eth0"`, "--interface"}},
		{"address", []string{"--interface", "lo", "--address", "10.0.0"}, []string{`--address: "10.0.0" is not an IPv4 or IPv6 address`}},
		{"VIP with port", []string{"--interface", "lo", "--vip", "192.0.2.10:80"}, []string{`--vip: "192.0.2.10:80" is not`}},
		{"loopback address", []string{"--interface", "lo", "--address", "::1"}, []string{"--address: ", "::1 is loopback"}},
		{"port 0", []string{"--interface", "lo", "--gue-port", "0"}, []string{"--gue-port 0: expected 1 to 65535"}},
		{"port 65536", []string{"--interface", "lo", "--gue-port", "65536"}, []string{"65536", "--gue-port"}},
		{"mode", []string{"--interface", "lo", "--mode", "fast"}, []string{`--mode: mode "fast" is not auto, native or generic`}},
		{"interval", []string{"--interface", "lo", "--interval", "-1s"}, []string{"--interval -1s"}},
		{"output", []string{"--interface", "lo", "-o", "yaml"}, []string{`--output "yaml": expected table or json`}},
		{"several", []string{"--mode", "x", "--vip", "y"}, []string{"--interface is missing", `mode "x"`, `"y"`}},
		{"no such interface", []string{"--interface", "nosuch0"}, []string{`"nosuch0"`, "there are: ", "lo"}},
		{"no such interface, address given", []string{"--interface", "nosuch0", "--address", "10.0.0.1"}, []string{`"nosuch0"`, "there are: "}},
		{"no usable address", []string{"--interface", "lo"}, []string{`"lo" has no address`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := newDecapCommand()
			cmd.SetArgs(tt.args)
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, f := range tt.want {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("error %q does not say %q", err, f)
				}
			}
		})
	}
}

func TestDecapTable(t *testing.T) {
	var c decap.Counters
	c.Reasons[decap.Decapsulated], c.Reasons[decap.OtherProtocol], c.Reasons[decap.InnerVersion] = 12, 3456, 1
	c.Kinds[decap.IPIP4in4] = decap.Count{Packets: 2, Bytes: 120}
	c.Kinds[decap.GUE6in6] = decap.Count{Packets: 10, Bytes: 9000}
	var got bytes.Buffer
	if err := printDecapTable(&got, "eth0", &attach.Attachment{Mode: attach.Native}, c); err != nil {
		t.Fatal(err)
	}
	want := `interface eth0, native mode
    DECAPSULATED  PACKETS    BYTES
       ipip_4in4        2      120
        gue_6in6       10     9000
           total       12     9120
   OTHER REASONS  PACKETS  VERDICT
  other_protocol     3456     pass
   inner_version        1     drop
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// decapFrame is GUE to 10.20.0.11, port 6080, around an IPv4 datagram of 29 bytes to 192.0.2.10.
const decapFrame = "020000000001020000000002" + "0800" +
	"4500003900000000401100000a1400010a14000b" + "753017c000250000" +
	"4500001d0000000040110000c6336407c000020a" + "0000000000090000" + "2a"

// awaitUp waits until the kernel says that a link is up.
func awaitUp(t *testing.T, name string) netlink.Link {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("link %s does not come up", name)
		}
		<-tick.C
	}
}

// serverLink makes a network namespace with a veth link "srv0", and a raw socket on its other end.
// The test's goroutine is in the namespace until the test ends.
func serverLink(t *testing.T) (socket, peerIndex int) {
	t.Helper()
	require.Root(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	check(err)
	made, err := netns.New()
	check(err)
	t.Cleanup(func() {
		// A thread that cannot go home stays locked, and ends with the goroutine.
		if err := netns.Set(home); err != nil {
			t.Errorf("go back to the first namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
		home.Close()
		made.Close()
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "srv0"
	check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}))
	for _, name := range []string{"srv0", "peer0"} {
		l, err := netlink.LinkByName(name)
		check(err)
		check(netlink.LinkSetUp(l))
		peerIndex = l.Attrs().Index
	}
	// Until the kernel has seen that both ends are up it drops what is sent.
	srv0 := awaitUp(t, "srv0")
	awaitUp(t, "peer0")
	check(netlink.AddrAdd(srv0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 20, 0, 11), Mask: net.CIDRMask(24, 32)}}))
	socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	check(err)
	t.Cleanup(func() { unix.Close(socket) })
	return socket, peerIndex
}

// TestDecapRun sends one frame to the running command, reads the count that it prints, ends it,
// and expects the last report and nothing attached.
func TestDecapRun(t *testing.T) {
	socket, peerIndex := serverLink(t)
	frame, err := hex.DecodeString(decapFrame)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // bounds a failing test only
	defer cancel()
	out, in := io.Pipe()
	last := make(chan decapReport, 1)
	go func() {
		defer close(last)
		// Sockets stay in the namespace they were made in, so this goroutine need not be there.
		lines := bufio.NewScanner(out)
		for sent := false; lines.Scan(); {
			var r decapReport
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Errorf("line %q: %v", lines.Text(), err)
			}
			// The first report proves that the program is attached.
			if !sent {
				if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: peerIndex, Halen: 6}); err != nil {
					t.Errorf("send frame: %v", err)
				}
				sent = true
			}
			if r.Decapsulated["gue_4in4"].Packets > 0 {
				cancel()
			}
			select {
			case <-last:
			default:
			}
			last <- r
		}
	}()
	cmd := newDecapCommand()
	cmd.SetArgs([]string{"--interface", "srv0", "--interval", "1ms", "-o", "json", "--vip", "192.0.2.10"})
	cmd.SetOut(in)
	var logged bytes.Buffer
	cmd.SetErr(&logged)
	err = cmd.ExecuteContext(ctx)
	in.Close()
	r := <-last
	if err != nil {
		t.Fatal(err)
	}
	if r.Interface != "srv0" || r.Mode != "native" || r.ModeReason == "" {
		t.Errorf("report is of %q, mode %q, %q", r.Interface, r.Mode, r.ModeReason)
	}
	if got, want := r.Decapsulated["gue_4in4"], (decap.Count{Packets: 1, Bytes: 29}); got != want || r.Reasons["decapsulated"] != 1 {
		t.Errorf("counted %+v, want %+v; reasons %v", got, want, r.Reasons)
	}
	if len(r.Reasons) != int(decap.ReasonLen) || len(r.Decapsulated) != int(decap.KindLen) {
		t.Errorf("%d reasons and %d kinds, want all", len(r.Reasons), len(r.Decapsulated))
	}
	if !strings.Contains(logged.String(), "10.20.0.11") {
		t.Errorf("log %q does not name the interface's address", &logged)
	}
	l, err := netlink.LinkByName("srv0")
	if err != nil {
		t.Fatal(err)
	}
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		t.Error("an XDP program is still attached")
	}
}
