// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-lb/remora/test/require"
)

const unboundConfig = `server:
	do-daemonize: no
	use-syslog: no
	logfile: ""
	verbosity: 0
	chroot: ""
	username: ""
	directory: "@DIR@"
	pidfile: "@DIR@/unbound.pid"
	interface: 127.0.0.1
	interface: ::1
	module-config: "iterator"
	local-zone: "example.com." static
	local-data: "www.example.com. A 192.0.2.1"
	local-data: "www.example.com. AAAA 2001:db8::1"
	local-data: "example.com. MX 10 mail.example.com."
remote-control:
	control-enable: no
`

// TestUnbound asks a real DNS server, over IPv4 and IPv6, UDP and TCP.
func TestUnbound(t *testing.T) {
	if !isolated(t, "unbound") {
		return
	}
	noLeaks(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	require.NoError(t, os.WriteFile(conf, []byte(strings.ReplaceAll(unboundConfig, "@DIR@", dir)), 0o600))
	daemon(t, "unbound", "-d", "-c", conf)
	listening(t, "127.0.0.1:53")
	for _, tc := range []struct {
		name, addr string
		kind       DNS
		want       Reason
		detail     string
	}{
		{"any answer", "127.0.0.1:53", DNS{Name: "www.example.com"}, OK, ""},
		{"the answer", "[::1]:53", DNS{Name: "www.example.com.", Answer: "192.0.2.1"}, OK, ""},
		{"another type", "127.0.0.1:53", DNS{Name: "www.example.com", Type: "AAAA", Answer: "2001:db8::1"}, OK, ""},
		{"several words", "127.0.0.1:53", DNS{Name: "example.com", Type: "MX", Answer: "10 mail.example.com."}, OK, ""},
		{"not the answer", "127.0.0.1:53", DNS{Name: "www.example.com", Answer: "192.0.2.2"}, BadRecord, `"192.0.2.2" is not among the 1 records`},
		{"no such name", "127.0.0.1:53", DNS{Name: "no.example.com"}, BadRcode, "the rcode is NXDOMAIN, not NOERROR"},
		{"no such name, expected", "127.0.0.1:53", DNS{Name: "no.example.com", Rcode: "NXDOMAIN"}, OK, ""},
		// There is no way to other servers.
		{"servfail", "127.0.0.1:53", DNS{Name: "www.example.org"}, ServFail, ""},
		{"down", "127.0.0.1:54", DNS{Name: "www.example.com"}, Refused, ""},
	} {
		for _, tcp := range []bool{false, true} {
			tc.kind.TCP = tcp
			name := tc.name + map[bool]string{false: ", UDP", true: ", TCP"}[tcp]
			t.Run(name, func(t *testing.T) { want(t, check(t, tc.kind, at(tc.addr), longTime), tc.want, tc.detail) })
		}
	}
}

// TestDNSReplies: replies that a well-behaved server does not give.
func TestDNSReplies(t *testing.T) {
	noLeaks(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	started := make(chan struct{})
	server := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "fails.test.":
			reply.Rcode = dns.RcodeServerFailure
		case "late.test.":
			return
		case "forged.test.":
			forged := reply.Copy()
			forged.Id++
			forged.Rcode = dns.RcodeServerFailure
			_ = w.WriteMsg(forged)
			_, _ = w.Write([]byte("garbage"))
		}
		_ = w.WriteMsg(reply)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		require.NoError(t, server.Shutdown())
		<-ended
	})
	target := Target{Addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	want(t, check(t, DNS{Name: "well.test"}, target, longTime), OK, "")
	want(t, check(t, DNS{Name: "fails.test"}, target, longTime), ServFail, "the rcode is SERVFAIL")
	want(t, check(t, DNS{Name: "forged.test"}, target, longTime), OK, "")
	want(t, check(t, DNS{Name: "late.test"}, target, 300*time.Millisecond), Timeout, "")
}
