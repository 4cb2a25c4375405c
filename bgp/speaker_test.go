// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

const testTimeout = 30 * time.Second

// isolated runs the test in a process of its own, as speakers want it: GoBGP has global variables
// and goroutines that do not end. It returns true in that process.
func isolated(t *testing.T) bool {
	t.Helper()
	const variable = "BGP_TEST_ISOLATED"
	if os.Getenv(variable) == "1" {
		return true
	}
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*testTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), variable+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	return false
}

// run runs a speaker until the test ends, and returns a way to wait for its end.
func run(t *testing.T, cfg Config) (s *Speaker, wait func() error) {
	t.Helper()
	s, err := New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		if err := s.Stop(context.Background(), 0); err != nil && !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
		cancel()
	})
	return s, func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(testTimeout):
			return errors.New("the speaker still runs")
		}
	}
}

func eventually(t *testing.T, what string, reached func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	require.NoError(t, rig.WaitFor(ctx, what, reached))
}

func prefixes(n int) (routes []Route) {
	for i := range n {
		routes = append(routes, Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)})
	}
	return routes
}

// TestAPI uses the socket as the gobgp command does.
func TestAPI(t *testing.T) {
	if !isolated(t) {
		return
	}
	cfg := good()
	cfg.APISocket = filepath.Join(t.TempDir(), "gobgp.sock")
	// What an earlier process left.
	old, err := net.Listen("unix", cfg.APISocket)
	require.NoError(t, err)
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, old.Close())

	s, wait := run(t, cfg)
	require.NoError(t, s.Announce(t.Context(), prefixes(3)))
	require.NoError(t, s.Announce(t.Context(), append(prefixes(2), Route{Prefix: netip.MustParsePrefix("2001:db8::1/128")})))
	info, err := os.Stat(cfg.APISocket)
	require.NoError(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	conn, err := grpc.NewClient("unix://"+cfg.APISocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	client := api.NewGobgpApiClient(conn)
	for family, want := range map[Family][]string{IPv4: {"198.18.0.0/32", "198.18.0.1/32"}, IPv6: {"2001:db8::1/128"}} {
		if got := list(t, client, family); !slices.Equal(got, want) {
			t.Errorf("%v routes are %q, want %q", family, got, want)
		}
	}
	require.NoError(t, s.Stop(t.Context(), 0))
	require.NoError(t, wait())
	if _, err := os.Stat(cfg.APISocket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there, error %v", err)
	}
	if err := s.Announce(t.Context(), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("announce after the end: %v", err)
	}
}

func list(t *testing.T, client api.GobgpApiClient, f Family) (prefixes []string) {
	t.Helper()
	stream, err := client.ListPath(t.Context(), &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: apiFamily(f)})
	require.NoError(t, err)
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			slices.Sort(prefixes)
			return prefixes
		}
		require.NoError(t, err)
		prefixes = append(prefixes, r.Destination.Prefix)
	}
}

func TestAPISocketOfAnother(t *testing.T) {
	cfg := good()
	cfg.APISocket = filepath.Join(t.TempDir(), "gobgp.sock")
	other, err := net.Listen("unix", cfg.APISocket)
	require.NoError(t, err)
	defer other.Close()
	s, err := New(cfg)
	require.NoError(t, err)
	require.ErrorSays(t, s.Run(t.Context()), "start BGP: open API socket: another process answers")
}

// TestLastError has a peer that nobody can connect to.
func TestLastError(t *testing.T) {
	if !isolated(t) {
		return
	}
	cfg := good()
	port, free := freePort(t)
	free()
	cfg.Peers = []Peer{{Address: addr("127.0.0.1"), ASN: 65000, Port: port, ConnectRetryTime: time.Second}}
	s, _ := run(t, cfg)
	require.NoError(t, s.Announce(t.Context(), prefixes(1)))
	eventually(t, "an error", func() error {
		x := s.Sessions()[0]
		if !strings.Contains(x.LastError, "connection refused") {
			return fmt.Errorf("session %+v", x)
		}
		if x.Routes != 0 || x.Uptime(time.Now()) != 0 || x.BFD != bfdOff || x.LastErrorAt.IsZero() {
			t.Errorf("session %+v", x)
		}
		return nil
	})
}

// freePort returns a port of 127.0.0.1 and a function that gives it free.
func freePort(t *testing.T) (port uint16, free func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), func() { require.NoError(t, l.Close()) }
}

// TestTwoSpeakers has a session over loopback, with a password. It measures how long an
// announcement takes to the other end.
func TestTwoSpeakers(t *testing.T) {
	if !isolated(t) {
		return
	}
	t.Setenv("GODEBUG", "multipathtcp=0")
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("secret"), 0o600))
	port, free := freePort(t)
	free()
	changes := make(chan []Session, 1000)
	receiver, _ := run(t, Config{
		ASN: 65000, RouterID: addr("10.0.0.2"), ListenPort: int(port), ListenAddresses: []netip.Addr{addr("127.0.0.1")},
		Peers:    []Peer{{Address: addr("127.0.0.2"), ASN: 65001, Passive: true, PasswordFile: password}},
		OnChange: func(s []Session) { changes <- s },
	})
	<-receiver.ready // one after the other: they write to the same variables of GoBGP
	sender, _ := run(t, Config{
		ASN: 65001, RouterID: addr("10.0.0.1"),
		Peers: []Peer{{Address: addr("127.0.0.1"), Port: port, ASN: 65000, Source: addr("127.0.0.2"), ConnectRetryTime: time.Second, PasswordFile: password}},
	})
	<-sender.ready
	require.NoError(t, receiver.Announce(t.Context(), nil))
	require.NoError(t, sender.Announce(t.Context(), prefixes(1000)))
	eventually(t, "the session", func() error {
		if x := sender.Sessions()[0]; x.State != Established || x.Routes != 1000 {
			return fmt.Errorf("session %+v", x)
		}
		return nil
	})
	told := false
	for !told {
		select {
		case s := <-changes:
			told = s[0].State == Established
		case <-time.After(testTimeout):
			t.Fatal("nobody was told of the session")
		}
	}
	measure(t, sender, receiver)
	if n := len(accepted(t, receiver)); n != 0 {
		t.Errorf("the receiver took %d routes, although it takes none", n)
	}
}

// accepted are the IPv4 routes that a speaker would use.
func accepted(t *testing.T, s *Speaker) (prefixes []string) {
	t.Helper()
	request := &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: apiFamily(IPv4)}
	require.NoError(t, s.server.ListPath(t.Context(), request, func(d *api.Destination) { prefixes = append(prefixes, d.Prefix) }))
	return prefixes
}

// measure logs the time from Announce until the update has been read at the other end, with a
// thousand routes there.
func measure(t *testing.T, sender, receiver *Speaker) {
	t.Helper()
	arrived := make(chan string, 10000)
	adjIn := &api.WatchEventRequest_Table_Filter{Type: api.WatchEventRequest_Table_Filter_ADJIN}
	watch := &api.WatchEventRequest{Table: &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{adjIn}}}
	require.NoError(t, receiver.server.WatchEvent(t.Context(), watch, func(r *api.WatchEventResponse) {
		for _, p := range r.GetTable().GetPaths() {
			var nlri api.IPAddressPrefix
			if p.GetNlri().UnmarshalTo(&nlri) == nil {
				arrived <- nlri.Prefix
			}
		}
	}))
	var took []time.Duration
	routes := prefixes(1000)
	for i := range 200 {
		routes[i].MED = uint32(i + 1)
		start := time.Now()
		require.NoError(t, sender.Announce(t.Context(), routes))
		for want := routes[i].Prefix.Addr().String(); ; {
			select {
			case got := <-arrived:
				if got != want {
					continue
				}
			case <-time.After(testTimeout):
				t.Fatalf("%s did not arrive", want)
			}
			break
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("announce to update read: median %v, p99 %v, most %v", took[100], took[197], took[199])
}

func TestCheckListening(t *testing.T) {
	t.Setenv("GODEBUG", "multipathtcp=0")
	require.NoError(t, checkListening())
	if on, err := os.ReadFile("/proc/sys/net/mptcp/enabled"); err != nil || strings.TrimSpace(string(on)) != "1" {
		t.Skip("the kernel has no Multipath TCP")
	}
	t.Setenv("GODEBUG", "multipathtcp=2")
	require.ErrorSays(t, checkListening(), "//go:debug multipathtcp=0")
}

func TestLogger(t *testing.T) {
	s := newSessions([]Peer{{Address: addr("10.0.0.2")}}, t0(), func([]Session) {})
	l := newLogger(good().withDefaults().Log, s)
	l.Debug("state changed", gobgplog.Fields{"Key": "10.0.0.2", "reason": "x"})
	l.Warn("Route family isn't supported", gobgplog.Fields{"Key": "10.0.0.2"})
	if e := s.lastError(addr("10.0.0.2")); e != "" {
		t.Errorf("what is no problem is an error: %q", e)
	}
	l.Info("Peer Down", gobgplog.Fields{"Key": "10.0.0.2", "Reason": "hold-timer-expired"})
	if e, want := s.lastError(addr("10.0.0.2")), "gobgp: Peer Down, reason hold-timer-expired"; e != want {
		t.Errorf("the last error is %q, want %q", e, want)
	}
	l.Warn("received notification", gobgplog.Fields{"Key": "10.0.0.2", "Code": 6, "Subcode": 2, "Data": []byte{}})
	if e, want := s.lastError(addr("10.0.0.2")), "gobgp: received notification, code 6, subcode 2"; e != want {
		t.Errorf("the last error is %q, want %q", e, want)
	}
	l.Fatal("it broke", gobgplog.Fields{"Err": errors.New("so")})
	l.Panic("it broke again", nil)
	require.ErrorSays(t, <-l.broken, "gobgp: it broke, err so")
}

// TestPortTaken: a port that another process has is an error, and one that is free again is used; what a
// speaker that broke had open does not stand in the way of the next.
func TestPortTaken(t *testing.T) {
	if !isolated(t) {
		return
	}
	t.Setenv("GODEBUG", "multipathtcp=0")
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	cfg := good()
	cfg.ListenAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	cfg.ListenPort = other.Addr().(*net.TCPAddr).Port
	first, err := New(cfg)
	require.NoError(t, err)
	require.ErrorSays(t, first.Run(t.Context()), "address already in use")
	if err := first.Announce(t.Context(), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("announce by a speaker that broke: %v", err)
	}
	require.NoError(t, other.Close())

	second, wait := run(t, cfg)
	require.NoError(t, second.Announce(t.Context(), prefixes(1)))
	second.log.Fatal("broken by the test", nil)
	require.ErrorSays(t, wait(), "broken by the test")

	third, _ := run(t, cfg)
	require.NoError(t, third.Announce(t.Context(), prefixes(2)))
}
