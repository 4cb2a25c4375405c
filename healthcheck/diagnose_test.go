// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import "testing"

func TestDiagnose(t *testing.T) {
	r := func(reason Reason) *Result { return &Result{Reason: reason, Detail: "the detail"} }
	for _, tc := range []struct {
		name  string
		parts Parts
		want  Fault
	}{
		{"well", Parts{Tunnel: *r(OK)}, NoFault},
		{"well, full size too", Parts{Tunnel: *r(OK), Padded: r(OK)}, NoFault},
		{"full size lost", Parts{Tunnel: *r(OK), Padded: r(Timeout)}, PathMTU},
		{"full size not acknowledged", Parts{Tunnel: *r(OK), Padded: r(NoAnswer)}, PathMTU},
		{"full size too big", Parts{Tunnel: *r(OK), Padded: r(TooBig)}, PathMTU},
		{"full size not tried by us", Parts{Tunnel: *r(OK), Padded: r(Local)}, NoFault},
		{"full size refused", Parts{Tunnel: *r(OK), Padded: r(Refused)}, Undetermined},
		{"could not ask", Parts{Tunnel: *r(Local)}, Undetermined},
		{"server silent", Parts{Tunnel: *r(Timeout), Direct: r(Timeout), ICMP: r(Timeout)}, ServerDown},
		{"server silent, pings not allowed", Parts{Tunnel: *r(Timeout), Direct: r(Unreachable), ICMP: r(Local)}, ServerDown},
		{"service silent", Parts{Tunnel: *r(Timeout), Direct: r(Timeout), ICMP: r(OK)}, ServiceDown},
		{"service does not listen", Parts{Tunnel: *r(Timeout), Direct: r(Refused)}, ServiceDown},
		{"service hangs, tunnel silent", Parts{Tunnel: *r(Timeout), Direct: r(NoAnswer)}, ServiceDown},
		{"refused everywhere", Parts{Tunnel: *r(Refused), Direct: r(Refused), DirectVIPPort: r(Refused)}, ServiceDown},
		{"refused, nothing else known", Parts{Tunnel: *r(Refused)}, ServiceDown},
		{"only the check port", Parts{Tunnel: *r(Refused), Direct: r(OK), DirectVIPPort: r(Refused)}, WrongPort},
		{"only the server's address", Parts{Tunnel: *r(Refused), Direct: r(OK), DirectVIPPort: r(OK)}, NotOnVIP},
		{"only the server's address, one port", Parts{Tunnel: *r(Refused), Direct: r(OK)}, NotOnVIP},
		{"name", Parts{Tunnel: *r(TLSName)}, TLSFault},
		{"expired", Parts{Tunnel: *r(TLSExpired)}, TLSFault},
		{"status", Parts{Tunnel: *r(BadStatus)}, ServiceFailing},
		{"not serving", Parts{Tunnel: *r(NotServing)}, ServiceFailing},
		{"command", Parts{Tunnel: *r(ExitStatus)}, ServiceFailing},
		{"accepts and is silent", Parts{Tunnel: *r(NoAnswer), Direct: r(NoAnswer)}, ServiceDown},
		{"accepts and closes", Parts{Tunnel: *r(ClosedEarly)}, ServiceDown},
		{"answers directly, full size lost", Parts{Tunnel: *r(NoAnswer), Direct: r(OK), Padded: r(NoAnswer)}, PathMTU},
		{"tunnel silent, no more known", Parts{Tunnel: *r(Timeout), Direct: r(OK)}, TunnelBroken},
		{"tunnel silent, failing answer directly", Parts{Tunnel: *r(Timeout), Direct: r(BadStatus)}, TunnelBroken},
		{"tunnel reaches the server, not the VIP", Parts{Tunnel: *r(Timeout), Direct: r(OK), Outer: r(OK)}, VIPMissing},
		{"the same by a refusal", Parts{Tunnel: *r(Timeout), Direct: r(OK), Outer: r(Refused)}, VIPMissing},
		{"tunnel does not reach the server", Parts{Tunnel: *r(Timeout), Direct: r(OK), Outer: r(Timeout)}, DecapsulationMissing},
		{"nobody unwraps IPIP", Parts{Tunnel: *r(Timeout), Direct: r(OK), Decapsulator: r(Unreachable)}, DecapsulationMissing},
		{"nobody unwraps GUE", Parts{Tunnel: *r(Timeout), Direct: r(OK), Outer: r(Timeout), Decapsulator: r(Refused)}, DecapsulationMissing},
		{"unwrapped and dropped", Parts{Tunnel: *r(Timeout), Direct: r(OK), Outer: r(Timeout), Decapsulator: r(Timeout)}, VIPMissing},
		{"tunnel silent, nothing tried", Parts{Tunnel: *r(Timeout)}, Undetermined},
		{"tunnel silent, pings answered", Parts{Tunnel: *r(Timeout), ICMP: r(OK)}, Undetermined},
		{"too big at once", Parts{Tunnel: *r(TooBig)}, PathMTU},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Diagnose(tc.parts)
			if got.Fault != tc.want || got.Detail == "" {
				t.Errorf("%s: %s, want %s", got.Fault, got.Detail, tc.want)
			}
		})
	}
}

// TestNames: every reason and fault has a name of its own.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	once := func(name string) {
		if seen[name] || name == "" {
			t.Errorf("name %q is empty or used twice", name)
		}
		seen[name] = true
	}
	for r := range reasonLen {
		once(r.String())
	}
	for f := range faultLen {
		once("fault " + f.String())
	}
}
