// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

const definingFile = `
interface: eth0
flows: {drain: 5m}
encapsulation: {type: gue, gue: {source4: 10.0.0.1}}
consul: {definitions: {folder: remora/services/, services: ["web-*"], prefixes: [192.0.2.0/25]}}
services:
  - {name: web-file, vips: [192.0.2.1:80/tcp], backends: [10.0.0.11]}
`

// TestDefine: a definition is a section of the file, and the file goes before it.
func TestDefine(t *testing.T) {
	c := mustParse(t, definingFile)
	for _, text := range []string{
		"{name: web-a, vips: [192.0.2.2:80/tcp], backends: [{address: 10.0.0.12, weight: 5}], health: {kind: tcp}}",
		`{"name": "web-a", "vips": ["192.0.2.2:80/tcp"], "backends": [{"address": "10.0.0.12", "weight": 5}], "health": {"kind": "tcp"}}`,
		"name: web-a\nvips:\n- 192.0.2.2:80/tcp\nbackends: [{address: 10.0.0.12, weight: 5}]\nhealth: {}\n",
	} {
		d, err := c.Define("key", []byte(text))
		require.NoError(t, err)
		v := d.Service.VIPs[0]
		if d.Service.Name != "web-a" || v.Encap != lb.GUE || v.Leave.Drain != mustParse(t, definingFile).Services[0].VIPs[0].Leave.Drain ||
			len(d.Backends) != 1 || d.Backends[0].Weight != 5 || d.Health == nil || d.Source != nil {
			t.Errorf("%s defines %+v", text, d)
		}
	}
	d, err := c.Define("key", []byte("{name: web-b, vips: [192.0.2.2:80/tcp], source: {consul: {service: web}}}"))
	require.NoError(t, err)
	if d.Source == nil || d.Source.Service != "web" || d.Health != nil {
		t.Errorf("defined %+v", d)
	}
	if len(c.Services) != 1 {
		t.Error("the file's services changed")
	}
}

func TestDefineRefuses(t *testing.T) {
	c := mustParse(t, definingFile)
	for _, tc := range []struct{ name, text, says string }{
		{"empty", "", "empty"},
		{"no section", "[]", "found a list"},
		{"an unknown field", "{name: web-a, vips: [192.0.2.2:80/tcp], colour: red}", `unknown field "colour"`},
		{"no VIP", "{name: web-a}", "the service has no VIP"},
		{"the file's name", "{name: web-file, vips: [192.0.2.2:80/tcp]}", "duplicate name"},
		{"the file's VIP", "{name: web-a, vips: [192.0.2.1:80/tcp]}", "duplicate VIP"},
		{"a server that is a VIP", "{name: web-a, vips: [192.0.2.2:80/tcp], backends: [192.0.2.1]}", "is the address of the VIP"},
		{"a tunnel that cannot be", "{name: web-a, vips: [192.0.2.2:80/tcp], backends: [\"2001:db8::1\"]}", "source6"},
		{"another name", "{name: shop, vips: [192.0.2.2:80/tcp]}", `service "shop" may not be defined`},
		{"another address", "{name: web-a, vips: [192.0.2.2:80/tcp, 192.0.2.129:80/tcp]}", "VIP 192.0.2.129:80/tcp is in none"},
		{"two documents", "{name: web-a, vips: [192.0.2.2:80/tcp]}\n---\n{}", "second document"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.Define("key", []byte(tc.text))
			require.ErrorSays(t, err, tc.says)
		})
	}
	_, err := mustParse(t, "interface: eth0\nservices: []\n").Define("key", []byte("{name: web-a, vips: [192.0.2.2:80/tcp]}"))
	require.ErrorSays(t, err, "lets no service be defined")
}
