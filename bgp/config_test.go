// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

func t0() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// good is a configuration with two peers and nothing to complain about.
func good() Config {
	return Config{
		ASN: 65001, RouterID: addr("10.0.0.1"),
		Peers: []Peer{{Address: addr("10.0.0.2"), ASN: 65000}, {Address: addr("2001:db8::2"), ASN: 65000}},
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(c *Config)
		// says is empty for no error.
		says []string
	}{
		{"good", func(*Config) {}, nil},
		{"nothing", func(c *Config) { *c = Config{} }, []string{"ASN: 0", "RouterID"}},
		{"port", func(c *Config) { c.ListenPort = 70000 }, []string{"ListenPort: 70000"}},
		{"peer twice", func(c *Config) { c.Peers[1] = c.Peers[0] }, []string{"Peers[1].Address: 10.0.0.2 is there twice"}},
		{"zone", func(c *Config) { c.Peers[0].Address = addr("fe80::1%eth0") }, []string{"Peers[0].Address: fe80::1%eth0"}},
		{"passive", func(c *Config) { c.Peers[0].Passive = true }, []string{"Peers[0].Passive: needs ListenPort"}},
		{"source", func(c *Config) { c.Peers[0].Source = addr("::1") }, []string{"Peers[0].Source: ::1 is of another family"}},
		{"times", func(c *Config) {
			c.Peers[0].HoldTime, c.Peers[0].KeepaliveTime = 2*time.Second, 1500*time.Millisecond
			c.Peers[0].IdleTime, c.Peers[0].ConnectRetryTime = -time.Second, 2*time.Hour
		}, []string{"HoldTime: 2s", "KeepaliveTime: 1.5s is not a whole", "IdleTime: -1s", "ConnectRetryTime: 2h"}},
		{"multihop of an internal peer", func(c *Config) { c.Peers[0].ASN, c.Peers[0].MultihopTTL = 65001, 5 }, []string{"MultihopTTL: is for external"}},
		{"multihop and the link", func(c *Config) {
			c.Peers[0].MultihopTTL, c.Peers[0].TTLSecurityHops, c.Peers[0].BFD.Enabled = 5, 1, true
		}, []string{"MultihopTTL: and TTLSecurityHops", "BFD: works on the link only"}},
		{"multihop", func(c *Config) { c.Peers[0].MultihopTTL = 5 }, nil},
		{"filter", func(c *Config) { c.Peers[0].Filter = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} }, []string{"Peers[0].Filter[0]: 10.0.0.1/8"}},
		{"IPv6 over IPv4", func(c *Config) { c.Peers[0].Families = []Family{IPv4, IPv6} }, []string{"Peers[0].NextHop6: must be set"}},
		{"IPv6 over IPv4 with next hop", func(c *Config) {
			c.Peers[0].Families, c.Peers[0].NextHop6 = []Family{IPv4, IPv6}, addr("2001:db8::1")
		}, nil},
		{"IPv4 over IPv6", func(c *Config) { c.Peers[1].Families = []Family{IPv4} }, []string{"Peers[1].NextHop4: or ExtendedNextHop"}},
		{"IPv4 over IPv6, extended", func(c *Config) { c.Peers[1].Families, c.Peers[1].ExtendedNextHop = []Family{IPv4}, true }, nil},
		{"extended over IPv4", func(c *Config) { c.Peers[0].ExtendedNextHop = true }, []string{"ExtendedNextHop: is for IPv6 sessions"}},
		{"next hop of the wrong family", func(c *Config) { c.Peers[0].NextHop4 = addr("::1") }, []string{"NextHop4: ::1 is not an IPv4 address"}},
		{"BFD interval", func(c *Config) { c.Peers[0].BFD.Interval = time.Millisecond }, []string{"BFD: Interval: 1ms"}},
		{"restarting", func(c *Config) { c.Restarting = true }, []string{"Restarting: is set without"}},
		{"restart time", func(c *Config) { c.GracefulRestart.RestartTime = 5000 * time.Second }, []string{"RestartTime: 1h23m20s"}},
		{"deferral", func(c *Config) { c.GracefulRestart = GracefulRestart{5 * time.Second, 5 * time.Second} }, []string{"DeferralTime: 5s"}},
		{"short restart time", func(c *Config) { c.GracefulRestart.RestartTime = time.Second }, nil},
		{"socket", func(c *Config) { c.APISocket = "relative" }, []string{"APISocket"}},
		{"long socket", func(c *Config) { c.APISocket = "/" + strings.Repeat("x", 100) + "/s" }, []string{"APISocket", "too long"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := good()
			tc.change(&cfg)
			if err := cfg.Validate(); len(tc.says) > 0 {
				require.ErrorSays(t, err, tc.says...)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// TestPasswordFiles checks that no fault of a file leads to a session without authentication.
func TestPasswordFiles(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ content, says string }{
		"missing":   {"", "no such file"},
		"empty":     {"", "is empty"},
		"line":      {"\r\n\n", "is empty"},
		"long":      {strings.Repeat("x", 81), "81 bytes, more than 80"},
		"two lines": {"a\nb\n", "more than one line"},
		"zero byte": {"a\x00b", "zero byte"},
		"directory": {"", "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			switch name {
			case "missing":
			case "directory":
				require.NoError(t, os.Mkdir(path, 0o700))
			default:
				require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o600))
			}
			cfg := good()
			cfg.Peers[1].PasswordFile = path
			_, err := New(cfg)
			require.ErrorSays(t, err, "Peers[1].PasswordFile", tc.says)
		})
	}
	path := filepath.Join(dir, "good")
	require.NoError(t, os.WriteFile(path, []byte(" a key with spaces \n"), 0o600))
	if p, err := readPassword(path); err != nil || p != " a key with spaces " {
		t.Errorf("password %q, error %v", p, err)
	}
}
