// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// TestCheckConsul: what comes from Consul is not shown as nothing, and Consul is asked on request.
func TestCheckConsul(t *testing.T) {
	answer := `[{"Node":{"Node":"a","Address":"10.0.0.1"},"Service":{"ID":"web","Service":"web","Port":80,"Weights":{"Passing":3,"Warning":1}},"Checks":[]},
		{"Node":{"Node":"b","Address":"10.0.0.2"},"Service":{"ID":"web","Service":"web","Port":81,"Weights":{"Passing":3,"Warning":1}},"Checks":[]}]`
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Consul-Index", "1")
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "remora.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
interface: eth0
consul: {addresses: [%q]}
bgp: {asn: 65001, router_id: 10.0.0.2}
services:
  - {name: web, vips: [192.0.2.10:80/tcp], source: {consul: {service: web}}}
  - {name: fixed, vips: [192.0.2.11:80/tcp], backends: [10.0.0.9]}
`, server.URL), 0o600))
	check := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newRootCommand()
		cmd.SetArgs(append([]string{"check", "-c", file}, args...))
		cmd.SetOut(&out)
		err := cmd.ExecuteContext(t.Context())
		return strings.Join(strings.Fields(out.String()), " "), err
	}
	wants := func(out string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("%q is not in %q", p, out)
			}
		}
	}
	out, err := check()
	require.NoError(t, err)
	wants(out, "web 192.0.2.10:80/tcp ipip 65537 maglev-v2 from Consul", "maglev-v2 1 1", "1 reals beside those from Consul", "by BGP as AS 65001")
	out, err = check("--consul")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wants(out, "web 192.0.2.10:80/tcp ipip 65537 maglev-v2 1 3", "2 reals; rings", "web: b/web is not used: port 81")
	status, answer = http.StatusForbidden, "Permission denied"
	out, err = check("--consul")
	require.ErrorSays(t, err, "of 1 services is not known")
	wants(out, "from Consul", "web: not known:")
}
