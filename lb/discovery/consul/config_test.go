// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the default", func(*Config) {}, ""},
		{"all kinds of addresses", func(c *Config) {
			c.Client.Addresses = []string{"localhost:8500", "http://[::1]:8500", "https://consul.example/prefix", "unix:///run/consul.sock"}
		}, ""},
		{"an address of another kind", func(c *Config) { c.Client.Addresses = []string{"ftp://a"} }, `Client.Addresses[0]: "ftp://a" is not HOST:PORT`},
		{"an empty address", func(c *Config) { c.Client.Addresses = []string{"a", ""} }, `Client.Addresses[1]: "" is not HOST:PORT`},
		{"a socket with a relative path", func(c *Config) { c.Client.Addresses = []string{"unix://run"} }, "unix:///PATH"},
		{"an address with a password", func(c *Config) { c.Client.Addresses = []string{"http://a:b@c"} }, "is not HOST:PORT"},
		{"half a certificate", func(c *Config) { c.Client.TLS.CertFile = "x" }, `Client.TLS: CertFile "x" and KeyFile ""`},
		{"a consistency that is none", func(c *Config) { c.Consistency = "some" }, `Consistency: "some" is not default, stale or consistent`},
		{"no staleness", func(c *Config) { c.MaxStale = 0 }, "MaxStale: 0s"},
		{"a short wait", func(c *Config) { c.Wait = time.Millisecond }, "Wait: 1ms is not 1s to 10m0s"},
		{"a long wait", func(c *Config) { c.Wait = time.Hour }, "Wait: 1h0m0s"},
		{"no grace", func(c *Config) { c.Grace = 0 }, "Grace: 0s"},
		{"no delay", func(c *Config) { c.Retry.Min = 0 }, "Retry.Min: 0s"},
		{"a bound below", func(c *Config) { c.Retry.Max = time.Millisecond }, "Retry.Max: 1ms is less than Retry.Min"},
		{"no connections", func(c *Config) { c.Connections = 0 }, "Connections: 0 is not 1 to 100000"},
		{"a folder without a slash", func(c *Config) { c.Overlay = "remora" }, `Overlay: "remora" does not end in a slash`},
		{"a folder with a slash before", func(c *Config) { c.Definitions = "/remora/" }, `Definitions: "/remora/"`},
		{"folders in one another", func(c *Config) { c.Overlay, c.Definitions = "a/", "a/b/" }, "are one in the other"},
		{"a watch without names", func(c *Config) { c.Watches = []Watch{{}} }, "Watches[0].Name: missing|Watches[0].Service"},
		{"a watch twice", func(c *Config) { c.Watches = []Watch{{Name: "a", Service: "x"}, {Name: "a", Service: "y"}} }, `Watches[1].Name: "a" is there twice`},
		{"a path for a service", func(c *Config) { c.Watches = []Watch{{Name: "a", Service: "x/y"}} }, `Watches[0].Service: "x/y"`},
		{"a tag that ends a quotation", func(c *Config) { c.Watches = []Watch{{Name: "a", Service: "x", Tag: `" or "`}} }, "Watches[0].Tag"},
		{"a claim of nothing", func(c *Config) { c.Claims = []ClaimRule{{}} }, "Claims[0].Services: empty|Claims[0].Prefixes: empty"},
		{"a claim by a bad pattern", func(c *Config) {
			c.Claims = []ClaimRule{{Services: []string{"[", ""}, Prefixes: []netip.Prefix{labNet}}}
		},
			`Claims[0].Services[0]: "["|Claims[0].Services[1]: ""`},
		{"a claim with host bits", func(c *Config) {
			c.Claims = []ClaimRule{{Services: []string{"a"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), {}}}}
		}, "Claims[0].Prefixes[0]: 192.0.2.1/24|Claims[0].Prefixes[1]: invalid Prefix"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := DefaultConfig()
			tc.change(&c)
			err := c.Validate()
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorSays(t, err, strings.Split(tc.want, "|")...)
			if _, err := New(c); err == nil {
				t.Error("New takes it")
			}
		})
	}
}

func TestValidateRegistration(t *testing.T) {
	r := Registration{ID: "a/b", Port: 70_000, DeregisterAfter: time.Second}
	require.ErrorSays(t, r.Validate(), "Name: missing", `ID: "a/b"`, "Port: 70000", "TTL: 0s", "DeregisterAfter: 1s")
	require.NoError(t, DefaultRegistration().Validate())
}

func TestValidateDrainLimit(t *testing.T) {
	c := DrainLimitConfig{TTL: time.Second}
	require.ErrorSays(t, c.Validate(), "Prefix: missing", "Limit: 0", "Holder: missing", "TTL: 1s")
	c = DefaultDrainLimitConfig()
	c.Holder = "one"
	require.NoError(t, c.Validate())
}

// TestReplaceRefuses: what is wrong changes nothing.
func TestReplaceRefuses(t *testing.T) {
	s, err := New(DefaultConfig())
	require.NoError(t, err)
	require.ErrorSays(t, s.Replace([]Watch{{}}, []ClaimRule{{}}), "Watches[0].Name", "Claims[0].Services")
}
