// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// shortTime is a time-out that is meant to pass, longTime one that is not.
const (
	shortTime = 150 * time.Millisecond
	longTime  = 10 * time.Second
)

func TestTCP(t *testing.T) {
	noLeaks(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		server := serveTCP(t, addr, hold)
		want(t, check(t, TCP{}, Target{Addr: server}, longTime), OK, "")
		want(t, check(t, TCP{}, Target{Addr: server, Source: server.Addr()}, longTime), OK, "")
		want(t, check(t, TCP{Size: 1400}, Target{Addr: server}, longTime), OK, "")
	}
	closed := closedPort(t)
	want(t, check(t, TCP{}, Target{Addr: closed}, longTime), Refused, "connect to "+closed.String()+": connection refused")
	want(t, check(t, TCP{}, Target{Addr: closed, Source: netip.MustParseAddr("192.0.2.1")}, longTime), Local, "")
	want(t, check(t, TCP{}, Target{Addr: closed, Interface: "nosuch"}, longTime), Local, "")
	want(t, check(t, TCP{}, Target{}, longTime), Local, "no address")
}

// TestCancel: a probe that is called off ends at once and says nothing about the server.
func TestCancel(t *testing.T) {
	noLeaks(t)
	silent := Target{Addr: serveTCP(t, "127.0.0.1:0", hold)}
	for _, k := range []Kind{HTTP{}, GRPC{}, HTTP{TLS: &TLS{}}, DNS{Name: "a.test", TCP: true}, Exec{Command: "/bin/sleep", Args: []string{"600"}}} {
		t.Run(fmt.Sprintf("%T", k), func(t *testing.T) {
			p, err := k.Probe()
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			timer := time.AfterFunc(shortTime, cancel)
			defer timer.Stop()
			want(t, p.Check(ctx, silent), Cancelled, "")
		})
	}
}

// TestSilent: a server that accepts connections and never answers.
func TestSilent(t *testing.T) {
	noLeaks(t)
	silent := Target{Addr: serveTCP(t, "127.0.0.1:0", hold)}
	for _, k := range []Kind{HTTP{}, GRPC{}, HTTP{TLS: &TLS{}}, DNS{Name: "a.test", TCP: true}} {
		want(t, check(t, k, silent, shortTime), NoAnswer, "connected, but no")
	}
	want(t, check(t, TCP{}, silent, longTime), OK, "")
}

// TestBrokenServers: servers that break the connection or the protocol.
func TestBrokenServers(t *testing.T) {
	noLeaks(t)
	closes := serveTCP(t, "127.0.0.1:0", func(c net.Conn) { c.Read(make([]byte, 4096)) })
	resets := serveTCP(t, "127.0.0.1:0", func(c net.Conn) {
		c.Read(make([]byte, 4096))
		c.(*net.TCPConn).SetLinger(0)
	})
	babbles := serveTCP(t, "127.0.0.1:0", func(c net.Conn) {
		c.Read(make([]byte, 4096))
		c.Write([]byte("220 mail.example.com ESMTP\r\n"))
		hold(c)
	})
	for _, tc := range []struct {
		name   string
		kind   Kind
		server netip.AddrPort
		want   Reason
	}{
		{"http closed", HTTP{}, closes, ClosedEarly},
		{"http reset", HTTP{}, resets, Reset},
		{"http other protocol", HTTP{}, babbles, BadAnswer},
		{"https closed", HTTP{TLS: &TLS{}}, closes, ClosedEarly},
		{"https other protocol", HTTP{TLS: &TLS{}}, babbles, TLSHandshake},
		{"grpc closed", GRPC{}, closes, ClosedEarly},
		{"grpc reset", GRPC{}, resets, Reset},
		{"dns closed", DNS{Name: "a.test", TCP: true}, closes, ClosedEarly},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want(t, check(t, tc.kind, Target{Addr: tc.server}, longTime), tc.want, "")
		})
	}
}

func TestUDP(t *testing.T) {
	noLeaks(t)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if string(buf[:n]) != "quiet" {
				conn.WriteTo(append([]byte("you said "), buf[:n]...), from)
			}
		}
	}()
	server := Target{Addr: netip.MustParseAddrPort(conn.LocalAddr().String())}
	want(t, check(t, UDP{Send: "hello"}, server, longTime), OK, "")
	want(t, check(t, UDP{Send: "hex:00ff", Expect: "hex:" + hex.EncodeToString([]byte("said \x00\xff"))}, server, longTime), OK, "")
	want(t, check(t, UDP{Send: "hello", Expect: "bye"}, server, longTime), BadBody, `"you said hello", does not contain "bye"`)
	want(t, check(t, UDP{Send: "quiet"}, server, shortTime), Timeout, "read the answer: nothing came back in time")
	want(t, check(t, UDP{}, Target{Addr: closedPort(t)}, longTime), Refused, "connection refused")
}

func TestExec(t *testing.T) {
	noLeaks(t)
	shell := func(script string, args ...string) Exec {
		return Exec{Command: "/bin/sh", Args: append([]string{"-c", script, "sh"}, args...)}
	}
	target := at("[2001:db8::1]:80")
	target.Mark, target.Source, target.Interface = 7, netip.MustParseAddr("2001:db8::2"), "eth9"
	want(t, check(t, shell(`test "$1" = '2001:db8::1 port 80'`, "{address} port {port}"), target, longTime), OK, "")
	want(t, check(t, shell(`env; test -z "$HOME" && test "$REMORA_ADDRESS $REMORA_PORT $REMORA_MARK $REMORA_SOURCE $REMORA_INTERFACE" = "2001:db8::1 80 7 2001:db8::2 eth9"`), target, longTime), OK, "")
	want(t, check(t, shell("echo why; exit 3"), target, longTime), ExitStatus, `exit status 3; it said "why"`)
	want(t, check(t, shell("kill -9 $$"), target, longTime), ExitStatus, "killed")
	want(t, check(t, shell("echo before; sleep 600; true"), target, shortTime*2), Timeout, `it said "before"`)
	want(t, check(t, shell("yes | head -c 1000000; exit 1"), target, longTime), ExitStatus, `"y\ny\n`)
	want(t, check(t, Exec{Command: "/nonexistent"}, target, longTime), Local, "no such file")
}

// TestExecLeavesNobody: what a command leaves behind in its group goes with it.
func TestExecLeavesNobody(t *testing.T) {
	noLeaks(t)
	file := filepath.Join(t.TempDir(), "pid")
	k := Exec{Command: "/bin/sh", Args: []string{"-c", "sleep 600 >/dev/null 2>&1 & echo $! >" + file}}
	want(t, check(t, k, at("192.0.2.1:1"), longTime), OK, "")
	pid, err := os.ReadFile(file)
	require.NoError(t, err)
	eventually(t, func() error {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("process is left: %s", stat)
		}
		return nil
	})
}

func TestValidateKinds(t *testing.T) {
	for _, tc := range []struct {
		name string
		kind Kind
		want []string
	}{
		{"tcp", TCP{Size: 127}, []string{"make TCP probe: Size: 127 is neither 0 nor from 128 to 65535"}},
		{"icmp", ICMP{Size: 65536}, []string{"make ICMP probe: Size: 65536"}},
		{"udp", UDP{Send: "hex:0", Expect: "hex:zz"}, []string{`Send: "0" is not hexadecimal`, `Expect: "zz" is not hexadecimal`}},
		{"udp size", UDP{Send: strings.Repeat("x", 65508)}, []string{"Send: 65508 bytes"}},
		{"dns", DNS{Type: "B", Rcode: "C"}, []string{`Name: ""`, `Type: "B"`, `Rcode: "C"`}},
		{"exec", Exec{Command: "sh"}, []string{`Command: "sh" is not an absolute path`}},
		{"grpc", GRPC{Authority: "a b", TLS: &TLS{CertFile: "x"}}, []string{"CertFile and KeyFile", `Authority: "a b"`}},
		{"http request", HTTP{Method: "A B", Path: "x"}, []string{`Path: "x"`}},
		{"http method", HTTP{Method: "A B"}, []string{`Method: "A B"`}},
		{"http host", HTTP{Host: "a/b"}, []string{`Host: "a/b"`}},
		{"http header", HTTP{Headers: map[string]string{"A": "b\r\nC: d", "E F": "g", "host": "h"}}, []string{`"A" with value "b\r\nC: d" is no header`, `"E F"`, "field of its own"}},
		{"http matches", HTTP{ExpectBody: "(", ExpectHeaders: map[string]string{"A": "["}}, []string{"ExpectBody: ", `ExpectHeaders: "A": `}},
		{"http status", HTTP{Status: []StatusRange{{300, 200}, {100, 200}}, BodyLimit: -1}, []string{"Status: 300 to 200", "Status: 100 to 200", "BodyLimit: -1"}},
		{"http weight", HTTP{WeightBody: true, WeightHeader: "A"}, []string{"WeightHeader: "}},
		{"tls", HTTP{TLS: &TLS{SkipVerify: true, CAFile: "x"}}, []string{"CAFile has no effect"}},
		{"tls files", HTTP{TLS: &TLS{CAFile: "/nonexistent"}}, []string{"read CAFile: open /nonexistent"}},
		{"tls pair", GRPC{TLS: &TLS{CertFile: "/nonexistent", KeyFile: "/nonexistent"}}, []string{"read CertFile: "}},
		{"tls no certificate", GRPC{TLS: &TLS{CAFile: "/dev/null"}}, []string{"no certificate in it"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.kind.Probe()
			require.ErrorSays(t, err, tc.want...)
		})
	}
}

func TestSame(t *testing.T) {
	probe := func(k Kind) Probe {
		p, err := k.Probe()
		require.NoError(t, err)
		return p
	}
	a := HTTP{Headers: map[string]string{"A": "b"}, TLS: &TLS{ServerName: "x"}}
	b := HTTP{Headers: map[string]string{"A": "b"}, TLS: &TLS{ServerName: "x"}}
	if !Same(probe(a), probe(b)) {
		t.Error("equal configurations are not the same")
	}
	b.TLS.ServerName = "y"
	if Same(probe(a), probe(b)) || Same(probe(TCP{}), probe(SYN{})) {
		t.Error("different configurations are the same")
	}
	// Probes of others are only the same if they are one.
	if f, g := newScript(), newScript(); !Same(f, f) || Same(f, g) || Same(f, probe(a)) {
		t.Error("probes of others")
	}
}
