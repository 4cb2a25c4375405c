// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

const nginxConfig = `daemon off;
master_process off;
user root;
pid @DIR@/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path @DIR@/body;
	proxy_temp_path @DIR@/proxy;
	fastcgi_temp_path @DIR@/fastcgi;
	uwsgi_temp_path @DIR@/uwsgi;
	scgi_temp_path @DIR@/scgi;
	default_type text/plain;
	ssl_certificate @DIR@/good.pem;
	ssl_certificate_key @DIR@/good.key;
	server {
		listen 127.0.0.1:80;
		listen [::1]:80;
		listen 127.0.0.1:443 ssl;
		listen [::1]:443 ssl;
		location = / { return 200 "well, $host $http_x_token\n"; }
		location = /down { return 503; }
		location = /away { return 302 http://192.0.2.1/; }
		location = /weight { add_header X-Weight 30%; return 200 "55 percent\n"; }
		location = /long { root @DIR@; }
	}
	server {
		listen 127.0.0.1:444 ssl;
		ssl_certificate @DIR@/old.pem;
		ssl_certificate_key @DIR@/old.key;
	}
	server {
		listen 127.0.0.1:445 ssl;
		ssl_client_certificate @DIR@/ca.pem;
		ssl_verify_client on;
		location = / { return 200 "$ssl_client_verify\n"; }
	}
}
`

// TestNginx asks a real web server, over IPv4 and IPv6.
func TestNginx(t *testing.T) {
	if !isolated(t, "nginx") {
		return
	}
	noLeaks(t)
	ca := newAuthority(t)
	ca.issue(t, "good", "www.example.com", time.Now().Add(time.Hour))
	ca.issue(t, "old", "www.example.com", time.Now().Add(-time.Hour))
	startNginx(t, ca)
	trust := func(name string) *TLS { return &TLS{ServerName: name, CAFile: ca.path("ca.pem")} }
	good := trust("www.example.com")
	client := *good
	client.CertFile, client.KeyFile = ca.path("good.pem"), ca.path("good.key")
	for _, tc := range []struct {
		name, addr string
		kind       HTTP
		want       Reason
		detail     string
	}{
		{"plain", "127.0.0.1:80", HTTP{}, OK, ""},
		{"plain, IPv6", "[::1]:80", HTTP{Method: "HEAD"}, OK, ""},
		{"host and header", "127.0.0.1:80", HTTP{Host: "shop.example.com", Headers: map[string]string{"X-Token": "abc"}, ExpectBody: "^well, shop.example.com abc\n$"}, OK, ""},
		{"body differs", "127.0.0.1:80", HTTP{ExpectBody: "unwell"}, BadBody, `the body, "well, 127.0.0.1 \n", does not match "unwell"`},
		{"body beyond the limit", "127.0.0.1:80", HTTP{Path: "/long", BodyLimit: 1000, ExpectBody: "end"}, BadBody, ""},
		{"body within the limit", "127.0.0.1:80", HTTP{Path: "/long", ExpectBody: "end$"}, OK, ""},
		{"header", "127.0.0.1:80", HTTP{ExpectHeaders: map[string]string{"server": "^nginx"}}, OK, ""},
		{"header missing", "127.0.0.1:80", HTTP{ExpectHeaders: map[string]string{"X-None": ""}}, BadHeader, "header X-None is []"},
		{"status", "127.0.0.1:80", HTTP{Path: "/down"}, BadStatus, `the status is "503 Service`},
		{"expected status", "127.0.0.1:80", HTTP{Path: "/down", Status: []StatusRange{{200, 299}, {503, 503}}}, OK, ""},
		{"redirection is not followed", "127.0.0.1:80", HTTP{Path: "/away"}, BadStatus, "302"},
		{"https", "127.0.0.1:443", HTTP{TLS: good}, OK, ""},
		{"https, IPv6", "[::1]:443", HTTP{TLS: good}, OK, ""},
		{"https, name from the host", "127.0.0.1:443", HTTP{Host: "www.example.com:443", TLS: trust("")}, OK, ""},
		{"wrong name", "127.0.0.1:443", HTTP{TLS: trust("other.example.com")}, TLSName, "not other.example.com"},
		{"no name", "127.0.0.1:443", HTTP{TLS: trust("")}, TLSName, ""},
		{"untrusted", "127.0.0.1:443", HTTP{TLS: &TLS{ServerName: "www.example.com"}}, TLSUntrusted, ""},
		{"untrusted, not verified", "127.0.0.1:443", HTTP{TLS: &TLS{SkipVerify: true}}, OK, ""},
		{"expired", "127.0.0.1:444", HTTP{TLS: good}, TLSExpired, ""},
		{"https to http", "127.0.0.1:80", HTTP{TLS: good}, TLSHandshake, ""},
		{"http to https", "127.0.0.1:443", HTTP{}, BadStatus, "400"},
		{"client certificate", "127.0.0.1:445", HTTP{TLS: &client, ExpectBody: "SUCCESS"}, OK, ""},
		{"no client certificate", "127.0.0.1:445", HTTP{TLS: good}, BadStatus, "400"},
		{"service down", "127.0.0.1:81", HTTP{}, Refused, ""},
	} {
		t.Run(tc.name, func(t *testing.T) { want(t, check(t, tc.kind, at(tc.addr), longTime), tc.want, tc.detail) })
	}
	for _, tc := range []struct {
		name   string
		kind   HTTP
		weight int // -1: none
	}{
		{"not asked", HTTP{Path: "/weight"}, -1},
		{"from the header", HTTP{Path: "/weight", WeightHeader: "x-weight"}, 30},
		{"from the body", HTTP{Path: "/weight", WeightBody: true}, 55},
		{"no number", HTTP{WeightBody: true}, -1},
		{"no header", HTTP{WeightHeader: "x-weight"}, -1},
	} {
		t.Run("weight "+tc.name, func(t *testing.T) {
			r := check(t, tc.kind, at("127.0.0.1:80"), longTime)
			if !r.OK() || r.HasWeight != (tc.weight >= 0) || r.HasWeight && r.Weight != tc.weight {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// startNginx uses the authority's directory.
func startNginx(t *testing.T, ca *authority) {
	t.Helper()
	require.NoError(t, os.WriteFile(ca.path("long"), []byte(strings.Repeat("x", 2000)+"end"), 0o600))
	conf := strings.ReplaceAll(nginxConfig, "@DIR@", ca.dir)
	require.NoError(t, os.WriteFile(ca.path("nginx.conf"), []byte(conf), 0o600))
	daemon(t, "nginx", "-p", ca.dir, "-c", ca.path("nginx.conf"), "-e", "stderr")
	listening(t, "127.0.0.1:80")
}
