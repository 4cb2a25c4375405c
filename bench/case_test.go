// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
)

func TestCasesAreValid(t *testing.T) {
	plan := addresses()
	for _, c := range append(Cases(), OptionCases()...) {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.validate(); err != nil {
				t.Fatal(err)
			}
			if c.Source == 0 {
				return
			}
			want := plan.client4.AsSlice()
			if c.IPv6 {
				want = plan.client6.AsSlice()[12:]
			}
			if got := c.Frame[c.Source : c.Source+4]; !bytes.Equal(got, want) {
				t.Errorf("source word at %d is %x, want %x", c.Source, got, want)
			}
			if got := c.Frame[c.Port : c.Port+2]; !bytes.Equal(got, []byte{4, 0}) {
				t.Errorf("source port at %d is %x, want 0400", c.Port, got)
			}
			if c.unit().Unit != nil {
				t.Errorf("the unit case %s has a unit of its own", c.unit().Name)
			}
		})
	}
}

func TestFrameHeaders(t *testing.T) {
	ack := caseNamed(t, "tcp4-ack").Frame
	if got := internetChecksum(ack[etherLen : etherLen+20]); got != 0 {
		t.Errorf("checksum over the IPv4 header is %04x, want 0", got)
	}
	if got := int(ack[16])<<8 | int(ack[17]); got != len(ack)-etherLen {
		t.Errorf("IPv4 length is %d, want %d", got, len(ack)-etherLen)
	}
	v6 := caseNamed(t, "tcp6").Frame
	if got := int(v6[18])<<8 | int(v6[19]); got != len(v6)-etherLen-40 {
		t.Errorf("IPv6 payload length is %d, want %d", got, len(v6)-etherLen-40)
	}
	vlan := caseNamed(t, "vlan").Frame
	if want := append(append([]byte{}, ack[:12]...), append([]byte{0x81, 0, 0, 100}, ack[12:]...)...); !bytes.Equal(vlan, want) {
		t.Errorf("tagged frame is %x, want %x", vlan, want)
	}
	echo := caseNamed(t, "icmp-echo").Frame
	if got := internetChecksum(echo[etherLen+20:]); got != 0 {
		t.Errorf("checksum over the ICMP message is %04x, want 0", got)
	}
}

func TestSelectCases(t *testing.T) {
	all, err := SelectCases(nil)
	if err != nil || len(all) != len(Cases()) {
		t.Errorf("no names select %d cases (%v), want all %d", len(all), err, len(Cases()))
	}
	two, err := SelectCases([]string{"udp4", "tcp4-ack"})
	if err != nil || len(two) != 2 || two[0].Name != "tcp4-ack" || two[1].Name != "udp4" {
		t.Errorf("two names select %v (%v)", two, err)
	}
	options, err := SelectCases([]string{"udp4", AllOptions})
	if err != nil || len(options) != 1+len(OptionCases()) || options[0].Name != "udp4" {
		t.Errorf("all options and another select %d cases (%v), want %d", len(options), err, 1+len(OptionCases()))
	}
	if _, err := SelectCases([]string{"tcp5"}); err == nil || !strings.Contains(err.Error(), `"tcp5" is not one of options, tcp4-ack`) {
		t.Errorf("an unknown name gives %v", err)
	}
}

func TestCaseValidate(t *testing.T) {
	good := caseNamed(t, "tcp4-ack")
	for _, tc := range []struct {
		name   string
		change func(*Case)
		want   string
	}{
		{"restore", func(c *Case) { c.Restore = 17 }, "restore: 17 is not 16, 64 or 96"},
		{"short frame", func(c *Case) { c.Restore = 96 }, "a frame of 64 bytes is not between 96 and 256"},
		{"long frame", func(c *Case) { c.Frame = make([]byte, 257) }, "a frame of 257 bytes is not between 16 and 256"},
		{"source outside", func(c *Case) { c.Source = 61 }, "source or port lies outside of the frame"},
		{"port outside", func(c *Case) { c.Port = 63 }, "source or port lies outside of the frame"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := good
			tc.change(&c)
			if err := c.validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("validate gives %v, want %q", err, tc.want)
			}
		})
	}
}

func TestParseExpectation(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Expectation
		err  string
	}{
		{"drop", Expectation{lb.Drop, 0}, ""},
		{"tx:20", Expectation{lb.TX, 20}, ""},
		{"pass:-4", Expectation{lb.Pass, -4}, ""},
		{"send", Expectation{}, `parse expectation "send": verdict "send" is not drop, pass or tx`},
		{"tx:", Expectation{}, `parse expectation "tx:": growth "" is not a number of bytes`},
		{"aborted", Expectation{}, `parse expectation "aborted": verdict "aborted" is not drop, pass or tx`},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParseExpectation(tc.in)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tc.err, text); diff != "" {
				t.Error(diff)
			}
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestValidateReportsAllProblems(t *testing.T) {
	target := Target{Name: "twin"}
	err := validate(Options{Reloads: 0, Rounds: -1, CPU: -2}, []Target{target, target}, nil, []int{3})
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"reloads: 0", "rounds: -1", "cpu: -2", `two targets are named "twin"`, "flows: 3 is not a power of two", "no targets, cases or flows"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}
