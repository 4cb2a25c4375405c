// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

func TestConfigValidate(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"least", Config{Interface: "eth0"}, ""},
		{"fixed", Config{Interface: "eth0", Fixed: &lb.NextHop{MAC: mac1}}, ""},
		{"long first retry", Config{Interface: "eth0", RetryMin: time.Hour}, ""},
		{"no interface", Config{}, "Interface: is empty"},
		{
			"fixed wrong", Config{Interface: "eth0", Fixed: &lb.NextHop{MTU: -1, Problem: "no"}},
			"Fixed.MAC: is not set\nFixed.MTU: -1 is negative\nFixed.Problem: \"no\" is not empty",
		},
		{
			"times wrong", Config{Interface: "eth0", RetryMax: time.Millisecond, StaleInterval: -1, ResyncInterval: -1},
			"StaleInterval: -1ns is negative\nResyncInterval: -1ns is negative\nRetryMax: 1ms is less than RetryMin, 1s",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := tt.cfg.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{})
	if want := "check next hop settings: Interface: is empty"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
