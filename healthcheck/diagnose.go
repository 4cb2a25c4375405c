// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import "fmt"

// Fault is the part of a path that is broken.
type Fault uint8

// The faults. Their names are stable.
const (
	// NoFault: nothing is broken.
	NoFault Fault = iota
	// ServerDown: the server does not answer at all.
	ServerDown
	// ServiceDown: the server answers, the service does not listen, or does not answer.
	ServiceDown
	// ServiceFailing: the service answers, but not as expected.
	ServiceFailing
	// TLSFault: the service does not show the certificate that is expected.
	TLSFault
	// WrongPort: the server's own address has the service, but on another port than the VIP's.
	WrongPort
	// NotOnVIP: the service listens on the server's own address only.
	NotOnVIP
	// DecapsulationMissing: the server does not unwrap packets.
	DecapsulationMissing
	// VIPMissing: the server unwraps packets, but does not take what was in them: it lacks the
	// address, or its reverse path filter drops them.
	VIPMissing
	// TunnelBroken: the server does not unwrap packets, or does not take those to the VIP.
	TunnelBroken
	// PathMTU: full-size packets do not reach the server.
	PathMTU
	// Undetermined: what was found does not name one part.
	Undetermined

	faultLen
)

var faultNames = [faultLen]string{
	"none", "server_down", "service_down", "service_failing", "tls", "wrong_port", "not_on_vip",
	"decapsulation_missing", "vip_missing", "tunnel_broken", "path_mtu", "undetermined",
}

func (f Fault) String() string {
	if f < faultLen {
		return faultNames[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// Parts are the results of probing the parts of a path to one real. Tunnel is needed; the others
// are nil where they were not tried or say nothing about the server.
type Parts struct {
	// Tunnel is the probe that clients' packets are like: through the tunnel to the VIP.
	Tunnel Result
	// Direct is the same probe to the server's own address, at the port of direct checks.
	Direct *Result
	// DirectVIPPort is a TCP probe to the server's own address, at the VIP's port. It may be nil if
	// the two ports are the same.
	DirectVIPPort *Result
	// Padded is a full-size probe through the tunnel to the VIP.
	Padded *Result
	// ICMP is an echo request to the server's own address.
	ICMP *Result
	// Outer is an echo request or TCP probe through the tunnel to the server's own address: it
	// needs the decapsulation but not the VIP.
	Outer *Result
	// Decapsulator is a bare outer packet to the server's own address: with GUE a UDP probe of the
	// tunnel's port. Refused or Unreachable if the server's kernel says that nobody takes such
	// packets; silence is what a decapsulator answers.
	Decapsulator *Result
}

// Diagnosis names the broken part.
type Diagnosis struct {
	Fault Fault
	// Detail is a sentence for people.
	Detail string
}

// Diagnose names the broken part of a path. It is a pure function. Results that say nothing about
// the server count as not tried.
func Diagnose(p Parts) Diagnosis {
	for _, part := range []**Result{&p.Direct, &p.DirectVIPPort, &p.Padded, &p.ICMP, &p.Outer, &p.Decapsulator} {
		if *part != nil && !(*part).Conclusive() {
			*part = nil
		}
	}
	switch r := p.Tunnel.Reason; {
	case !p.Tunnel.Conclusive():
		return Diagnosis{Undetermined, "the probe could not be sent: " + p.Tunnel.String()}
	case r == OK:
		return p.diagnoseSize()
	case r == TooBig:
		return Diagnosis{PathMTU, "the path takes no packets of this size: " + p.Tunnel.Detail}
	case r.tls():
		return Diagnosis{TLSFault, "the service is reached, TLS fails: " + p.Tunnel.Detail}
	case r.reached():
		return Diagnosis{ServiceFailing, "the service is reached and fails: " + p.Tunnel.Detail}
	case r == Refused:
		return p.diagnoseRefused()
	case r == NoAnswer, r == Reset, r == ClosedEarly, r == ExitStatus:
		return p.diagnoseConnected()
	}
	return p.diagnoseSilence()
}

// diagnoseSize: small packets come through.
func (p Parts) diagnoseSize() Diagnosis {
	switch {
	case p.Padded == nil || p.Padded.OK():
		return Diagnosis{NoFault, "the service is reached"}
	case p.Padded.Reason == Timeout || p.Padded.Reason == NoAnswer || p.Padded.Reason == TooBig:
		return Diagnosis{PathMTU, "small packets reach the service, full-size ones do not: " + p.Padded.Detail}
	}
	return Diagnosis{Undetermined, "the service is reached, the full-size probe ended otherwise: " + p.Padded.String()}
}

// diagnoseRefused: the server unwraps, and has the VIP, since the reset came from there.
func (p Parts) diagnoseRefused() Diagnosis {
	switch {
	case failedWith(p.DirectVIPPort, Refused) && passes(p.Direct):
		return Diagnosis{WrongPort, "the service listens on the port of direct checks, nobody on the VIP's port"}
	case passes(p.DirectVIPPort), p.DirectVIPPort == nil && passes(p.Direct):
		return Diagnosis{NotOnVIP, "the service listens on the server's own address, but not on the VIP"}
	}
	return Diagnosis{ServiceDown, "the server is reached, nobody listens on the VIP's port"}
}

// diagnoseConnected: a connection was made, through the tunnel and to the VIP.
func (p Parts) diagnoseConnected() Diagnosis {
	switch {
	case p.Tunnel.Reason == ExitStatus:
		return Diagnosis{ServiceFailing, "the command says that the service fails: " + p.Tunnel.Detail}
	case p.Padded != nil && p.Padded.Reason == TooBig, p.Tunnel.Reason == NoAnswer && failedWith(p.Padded, NoAnswer) && passes(p.Direct):
		return Diagnosis{PathMTU, "connections are made, but full-size packets do not arrive: " + p.Padded.Detail}
	}
	return Diagnosis{ServiceDown, "the service accepts connections and does not answer: " + p.Tunnel.Detail}
}

// diagnoseSilence: nothing came back through the tunnel.
func (p Parts) diagnoseSilence() Diagnosis {
	switch {
	case passes(p.Direct) || passes(p.DirectVIPPort) || p.Direct != nil && p.Direct.Reason.reached():
		return p.diagnoseTunnel()
	case failedWith(p.Direct, Refused):
		return Diagnosis{ServiceDown, "the server answers at its own address, nobody listens on the port"}
	case p.Direct != nil && (p.Direct.Reason == NoAnswer || p.Direct.Reason == Reset || p.Direct.Reason == ClosedEarly):
		return Diagnosis{ServiceDown, "the service accepts connections at the server's own address and does not answer"}
	case passes(p.ICMP) && p.Direct != nil:
		return Diagnosis{ServiceDown, "the server answers pings, but not at the service's port"}
	case p.Direct != nil || p.ICMP != nil && !p.ICMP.OK():
		return Diagnosis{ServerDown, "the server does not answer, neither through the tunnel nor directly"}
	}
	return Diagnosis{Undetermined, "nothing comes back through the tunnel: " + p.Tunnel.Detail}
}

// diagnoseTunnel: the server and the service are well.
func (p Parts) diagnoseTunnel() Diagnosis {
	const well = "the service answers at the server's own address, but nothing comes back through the tunnel: "
	switch {
	case passes(p.Outer) || failedWith(p.Outer, Refused):
		return Diagnosis{VIPMissing, well + "the server unwraps packets, but lacks the VIP"}
	case failedWith(p.Decapsulator, Refused) || failedWith(p.Decapsulator, Unreachable):
		return Diagnosis{DecapsulationMissing, well + "the server's kernel says that nobody unwraps packets"}
	case failedWith(p.Decapsulator, Timeout):
		return Diagnosis{VIPMissing, well + "the server takes outer packets, but lacks the VIP, or its reverse path filter drops what was in them"}
	case p.Outer != nil:
		return Diagnosis{DecapsulationMissing, well + "the server does not unwrap packets, or its reverse path filter drops what was in them"}
	}
	return Diagnosis{TunnelBroken, well + "the server does not unwrap packets, lacks the VIP, or its reverse path filter drops them"}
}

func passes(r *Result) bool { return r != nil && r.OK() }

func failedWith(r *Result, reason Reason) bool { return r != nil && r.Reason == reason }
