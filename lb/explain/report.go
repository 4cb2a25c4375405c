// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Report is what becomes of one packet, and why. Parts that the packet did not get to are nil.
type Report struct {
	// Packet is the packet for people; Bytes is the length of its frame.
	Packet string `json:"packet"`
	Bytes  int    `json:"bytes"`
	// Steps are those of docs/packet-path.md, in order.
	Steps []Step `json:"steps"`
	VIP   *VIP   `json:"vip,omitempty"`
	// Nearest are VIPs that the packet just missed.
	Nearest []Near `json:"nearest,omitempty"`
	Slot    *Slot  `json:"slot,omitempty"`
	Flow    *Flow  `json:"flow,omitempty"`
	Real    *Real  `json:"real,omitempty"`
	// Sent is what is sent out, be it to the real or as an answer.
	Sent    *Sent  `json:"sent,omitempty"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// Why is the reason in a sentence, with the names that matter.
	Why string `json:"why"`
	// Check is the comparison with the program, if there was one.
	Check *Check `json:"check,omitempty"`

	frame []byte // as it is sent or was
}

// Step is what one step found.
type Step struct {
	Name string `json:"step"`
	Text string `json:"text"`
}

// VIP is the VIP that a packet met.
type VIP struct {
	VIP      string `json:"vip"`
	Service  string `json:"service"`
	RingSize uint32 `json:"ring_size"`
	FlowMode string `json:"flow_mode"`
}

// Near is a VIP that a packet missed, and by what.
type Near struct {
	VIP    string `json:"vip"`
	Missed string `json:"missed"`
}

// Slot is the packet's slot. Current and Previous are nil where it names none, or one without a record.
type Slot struct {
	Hash     uint32    `json:"hash"`
	Slot     uint32    `json:"slot"`
	State    string    `json:"state"`
	Current  *RealName `json:"current,omitempty"`
	Previous *RealName `json:"previous,omitempty"`
}

// RealName names a real.
type RealName struct {
	ID      lb.RealID `json:"id"`
	Address string    `json:"address"`
}

func (r *RealName) String() string {
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%s (real %d)", r.Address, r.ID)
}

// Flow is what the flow table has of the packet's flow.
type Flow struct {
	// Asked tells whether the packet asks the flow table; Found, whether there is an entry.
	Asked bool `json:"asked"`
	Found bool `json:"found"`
	// Real has the flow, by an entry of this generation; Present tells whether that is still the real's.
	Real       *RealName `json:"real,omitempty"`
	Generation uint8     `json:"generation,omitempty"`
	Present    bool      `json:"present,omitempty"`
	// Idle is how long ago the last packet was, to about a second; Seen, whether there was one after the
	// flow was remembered.
	Idle time.Duration `json:"idle_ns,omitempty"`
	Seen bool          `json:"seen,omitempty"`
	// Full tells that the flow has no place in the table.
	Full bool `json:"full,omitempty"`
	// Change is what the packet would change: none, use, remember or forget.
	Change string `json:"change,omitempty"`
}

// Real is the real that the packet is for.
type Real struct {
	RealName
	VIP           string `json:"vip"`
	Weight        uint32 `json:"weight"`
	Use           string `json:"use"`
	Generation    uint8  `json:"generation"`
	Health        string `json:"health"`
	Encapsulation string `json:"encapsulation"`
	// NextHop is the link address; empty if none is known, and NextHopProblem says why. NextHopStale tells
	// that the kernel could not confirm it lately.
	NextHop        string `json:"next_hop,omitempty"`
	NextHopStale   bool   `json:"next_hop_stale,omitempty"`
	NextHopProblem string `json:"next_hop_problem,omitempty"`
	// MTU is the next hop's; Room is what it leaves for the packet, whose length is Length. 0 if the next
	// hop is not known, or the real is this machine.
	MTU    int  `json:"mtu,omitempty"`
	Room   int  `json:"room,omitempty"`
	Length int  `json:"length,omitempty"`
	Fits   bool `json:"fits,omitempty"`
}

// Sent is a frame that is sent out.
type Sent struct {
	// Outer is the headers in front of the client's packet in hexadecimal, without the Ethernet header;
	// empty if it is an answer. Text is the packet for people.
	Outer string `json:"outer,omitempty"`
	Text  string `json:"text"`
	// Frame is the whole frame in hexadecimal.
	Frame string `json:"frame"`
}

// Check is what the program did with the packet on copies of the tables.
type Check struct {
	// Agrees tells that it did as the report says.
	Agrees  bool   `json:"agrees"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Frame   string `json:"frame,omitempty"` // in hexadecimal; only if it does not agree
	// OtherProgram tells that the instance runs the program of another version than was compared with.
	OtherProgram bool `json:"other_program,omitempty"`
}

// Packet says what becomes of a frame, from the first byte of its Ethernet header on.
func (w *World) Packet(frame []byte) (*Report, error) {
	run, err := w.process(frame)
	if err != nil {
		return nil, fmt.Errorf("explain packet: %v", err)
	}
	res := run.result
	r := &Report{
		Packet: describeFrame(frame), Bytes: len(frame), Steps: run.steps,
		Verdict: res.Verdict.String(), Reason: res.Reason.String(), frame: res.Frame,
	}
	if name, ok := run.vip(); ok {
		r.addVIP(w.entry(name), run)
	}
	if missed, ok := run.missed(); ok && res.Reason == lb.ReasonNotVIP {
		r.Nearest = w.nearest(missed)
	}
	if real, ok := run.tables.Reals[res.Real]; ok {
		r.Real = w.describeReal(real, run.length())
	}
	if res.Verdict == lb.TX {
		r.addSent(run)
	}
	r.Why = w.why(r, run)
	return r, nil
}

func (r *Report) addVIP(v lb.VIPEntry, run *run) {
	r.VIP = &VIP{VIP: v.VIP.String(), Service: v.Service, RingSize: v.Ring.Size, FlowMode: v.Flows.String()}
	text, ok := run.text("ring")
	var s Slot
	if _, err := fmt.Sscanf(text, "hash %v, slot %d,", &s.Hash, &s.Slot); !ok || err != nil {
		return
	}
	slot := run.tables.VIPs[v.VIP].Ring[s.Slot]
	s.State = slot.State().String()
	s.Current = run.name(slot.Cur())
	if slot.State() == lb.SlotMoving {
		s.Previous = run.name(slot.Prev())
	}
	r.Slot = &s
	r.addFlow(run)
}

// name is the real of an id; nil if there is none.
func (run *run) name(id lb.RealID) *RealName {
	real, ok := run.tables.Reals[id]
	if !ok {
		return nil
	}
	return &RealName{ID: id, Address: real.Backend.Addr.String()}
}

func (r *Report) addFlow(run *run) {
	f := &Flow{Asked: run.asked, Full: run.full}
	r.Flow = f
	if run.asked {
		f.Change = run.result.Flow.Change.String()
	}
	if e := run.remember; e != nil {
		f.Found, f.Real, f.Generation, f.Idle, f.Seen = true, run.name(e.Real), e.Generation, e.Idle, e.Seen
		f.Present = f.Real != nil && run.tables.Reals[e.Real].Generation == e.Generation
	}
}

// describeReal is a real, and whether a packet of this length fits on the way to it.
func (w *World) describeReal(real lb.Real, length int) *Real {
	d := &Real{
		RealName: RealName{ID: real.ID, Address: real.Backend.Addr.String()},
		VIP:      real.VIP.String(), Weight: real.Backend.Weight, Use: real.Use.String(),
		Generation: real.Generation, Health: w.health(real), Encapsulation: real.Tunnel.Encap.String(),
	}
	hop := real.NextHop
	switch {
	case real.Tunnel.Encap == lb.Local:
		return d
	case !hop.Resolved():
		d.NextHopProblem = cmp.Or(hop.Problem, "no link address known")
		return d
	}
	d.NextHop, d.NextHopStale = net.HardwareAddr(hop.MAC[:]).String(), hop.Stale
	d.MTU, d.Room, d.Length = hop.MTU, max(hop.MTU-real.Tunnel.OuterLen(), 0), length
	d.Fits = d.Length <= d.Room
	return d
}

// length is that of the IP packet that is sent to the real, by its own header: of an inner one if it was
// decapsulated.
func (run *run) length() int {
	if run.result.Bytes != 0 {
		return run.result.Bytes
	}
	// It was too big then, which was said on the way.
	text, _ := run.text("too big")
	var n int
	if _, err := fmt.Sscanf(text, "%d bytes", &n); err != nil {
		return 0
	}
	return n
}

func (r *Report) addSent(run *run) {
	frame := run.result.Frame
	link := linkLen(frame)
	r.Sent = &Sent{Frame: hex.EncodeToString(frame), Text: describePacket(frame[link:])}
	if run.result.Reason == lb.ReasonForwarded {
		outer := run.tables.Reals[run.result.Real].Tunnel.OuterLen()
		r.Sent.Outer = hex.EncodeToString(frame[link : link+outer])
	}
}

// missed is the VIP that would be the packet's, if there were one.
func (run *run) missed() (lb.VIP, bool) {
	text, ok := run.text("vip")
	if !ok {
		return lb.VIP{}, false
	}
	var end, protocol string
	if _, err := fmt.Sscanf(text, "none has %s %s", &end, &protocol); err != nil || end == "" {
		return lb.VIP{}, false
	}
	at, err := netip.ParseAddrPort(end[:len(end)-1])
	if err != nil {
		return lb.VIP{}, false
	}
	v := lb.VIP{Addr: at.Addr(), Port: at.Port(), Protocol: lb.TCP}
	if protocol == lb.UDP.String() {
		v.Protocol = lb.UDP
	}
	return v, true
}

// Compare notes what the program did with the packet. OtherProgram tells that it is not the one that the
// instance runs.
func (r *Report) Compare(verdict lb.Verdict, reason lb.Reason, frame []byte, otherProgram bool) {
	r.Check = &Check{Verdict: verdict.String(), Reason: reason.String(), OtherProgram: otherProgram}
	r.Check.Agrees = r.Check.Verdict == r.Verdict && r.Check.Reason == r.Reason && bytes.Equal(frame, r.frame)
	if !r.Check.Agrees {
		r.Check.Frame = hex.EncodeToString(frame)
	}
}
