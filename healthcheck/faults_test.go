// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// TestPacketFaults uses a firewall to break the network.
func TestPacketFaults(t *testing.T) {
	if !isolated(t, "nft") {
		return
	}
	noLeaks(t)
	// The loopback interface takes 65536 bytes; a link is made to look like Ethernet.
	command(t, "ip", "link", "set", "lo", "mtu", "1500")
	v4, v6 := Target{Addr: serveTCP(t, "127.0.0.1:0", hold)}, Target{Addr: serveTCP(t, "[::1]:0", hold)}
	everyKind := []Kind{TCP{}, SYN{}, ICMP{}, ICMP{Size: 1500}, TCP{Size: 1500}}
	for _, target := range []Target{v4, v6} {
		for _, k := range everyKind {
			t.Run(fmt.Sprintf("well, %T%v to %v", k, k, target.Addr.Addr()), func(t *testing.T) {
				want(t, check(t, k, target, longTime), OK, "")
			})
		}
	}
	t.Run("path MTU without a word", func(t *testing.T) {
		firewall(t, "meta length > 1400 drop")
		for _, target := range []Target{v4, v6} {
			want(t, check(t, TCP{}, target, longTime), OK, "")
			want(t, check(t, TCP{Size: 1400}, target, longTime), OK, "")
			want(t, check(t, TCP{Size: 1500}, target, shortTime*2), NoAnswer, "packets of 1500 bytes were not acknowledged")
			want(t, check(t, ICMP{Size: 1400}, target, longTime), OK, "")
			want(t, check(t, ICMP{Size: 1401}, target, shortTime), Timeout, "")
		}
	})
	t.Run("path MTU that is known", func(t *testing.T) {
		command(t, "ip", "link", "set", "lo", "mtu", "1300")
		t.Cleanup(func() { command(t, "ip", "link", "set", "lo", "mtu", "1500") })
		for _, target := range []Target{v4, v6} {
			want(t, check(t, TCP{Size: 1400}, target, longTime), TooBig, "packets of 1400 bytes do not fit: the path takes 1300")
			want(t, check(t, ICMP{Size: 1301}, target, longTime), TooBig, "message too long")
			want(t, check(t, ICMP{Size: 1300}, target, longTime), OK, "")
		}
	})
	t.Run("silent server", func(t *testing.T) {
		firewall(t, "drop")
		for _, k := range append(everyKind, HTTP{}, GRPC{}, DNS{Name: "a.test"}, DNS{Name: "a.test", TCP: true}, UDP{}) {
			want(t, check(t, k, v4, shortTime), Timeout, "nothing came back in time")
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		for _, what := range []string{"meta l4proto { tcp, udp }", "icmp type echo-request", "icmpv6 type echo-request"} {
			firewall(t, what+" reject with icmpx type host-unreachable")
		}
		for _, target := range []Target{v4, v6} {
			for _, k := range []Kind{ICMP{}, SYN{}, UDP{}, TCP{}} {
				want(t, check(t, k, target, longTime), Unreachable, "")
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		target := v4
		target.Addr = closedPort(t)
		want(t, check(t, SYN{}, target, longTime), Refused, "the SYN was answered with a reset")
	})
	t.Run("no route", func(t *testing.T) {
		for _, k := range everyKind {
			want(t, check(t, k, at("192.0.2.1:80"), longTime), Unreachable, "network is unreachable")
		}
	})
}

// firewall adds a rule for what arrives; all rules go at the end of the test.
func firewall(t *testing.T, rule string) {
	t.Helper()
	command(t, "nft", "add table inet fault; add chain inet fault input { type filter hook input priority 0; }; add rule inet fault input "+rule)
	t.Cleanup(func() { command(t, "nft", "add table inet fault; delete table inet fault") })
}

// TestHalfOfPacketsLost: enough single probes fail to see it, few enough in a row to stay up with a
// judgement that allows for it.
func TestHalfOfPacketsLost(t *testing.T) {
	if !isolated(t, "nft") {
		return
	}
	noLeaks(t)
	server := Target{Addr: serveTCP(t, "127.0.0.1:0", hold)}
	firewall(t, "numgen random mod 2 == 0 drop")
	results := make(map[Reason]int)
	const probes = 60
	for range probes {
		results[check(t, ICMP{}, server, 30*time.Millisecond).Reason]++
	}
	// Request and reply arrive in one probe of four: the chance to see none or all is below 1e-7.
	if results[OK] == 0 || results[Timeout] == 0 || results[OK]+results[Timeout] != probes {
		t.Errorf("results %v", results)
	}
}

// TestMarkedPackets: all packets of a probe carry its mark, also those that end the connection.
func TestMarkedPackets(t *testing.T) {
	if !isolated(t, "nft") {
		return
	}
	noLeaks(t)
	servers := []Target{{Addr: serveTCP(t, "127.0.0.1:0", hold), Mark: 0x1234}, {Addr: serveTCP(t, "[::1]:0", hold), Mark: 0x1234}}
	command(t, "nft", "add table inet marks; add chain inet marks out { type filter hook output priority 0; }; "+
		"add counter inet marks seen; add rule inet marks out meta mark 0x1234 counter name seen")
	for _, k := range []Kind{TCP{}, SYN{}, HTTP{}, UDP{}, ICMP{}, DNS{Name: "a.test"}} {
		least := 1
		switch k.(type) {
		case TCP, SYN, HTTP:
			least = 2 // the first and the last
		}
		for _, server := range servers {
			before := markedPackets(t)
			r := check(t, k, server, shortTime)
			if !r.Conclusive() {
				t.Errorf("%T: %v", k, r)
			}
			if n := markedPackets(t) - before; n < least {
				t.Errorf("%T to %v: %d marked packets", k, server.Addr, n)
			}
		}
	}
}

func markedPackets(t *testing.T) (n int) {
	t.Helper()
	out := output(t, "nft", "list", "counter", "inet", "marks", "seen")
	for _, field := range fieldsAfter(out, "packets") {
		_, err := fmt.Sscan(field, &n)
		require.NoError(t, err)
		return n
	}
	t.Fatalf("no counter in %q", out)
	return 0
}

// TestWithoutPrivilege: a probe that may not do its work says so, and nothing about the server.
func TestWithoutPrivilege(t *testing.T) {
	if os.Getenv(isolatedTest) != "" && os.Geteuid() != 0 {
		askWithoutPrivilege(t)
		return
	}
	if !isolated(t, "setpriv") {
		return
	}
	// Once more, without any capability. Nobody may use ping sockets in a new namespace.
	t.Log(output(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
		os.Args[0], "-test.run=^TestWithoutPrivilege$", "-test.v"))
}

func askWithoutPrivilege(t *testing.T) {
	t.Helper()
	noLeaks(t)
	target := at("127.0.0.1:80")
	for _, k := range []Kind{SYN{}, ICMP{}} {
		want(t, check(t, k, target, longTime), Local, "it needs CAP_NET_RAW")
	}
	target.Mark = 1
	want(t, check(t, TCP{}, target, longTime), Local, "set mark 0x1: operation not permitted")
}

// TestLate: an answer that comes after the deadline does not count, and one that comes bit by bit
// does not move it.
func TestLate(t *testing.T) {
	noLeaks(t)
	server := Target{Addr: serveTCP(t, "127.0.0.1:0", func(c net.Conn) {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		text := "HTTP/1.1 200 OK\r\nX-Long: "
		for range ticker.C {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			text = "x"
		}
	})}
	start := time.Now()
	want(t, check(t, HTTP{}, server, shortTime), NoAnswer, "")
	if d := time.Since(start); d > patience/2 {
		t.Errorf("it took %v", d)
	}
}
