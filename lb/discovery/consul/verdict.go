// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// State is what becomes of an instance.
type State uint8

// The states, in the order in which one of several instances with one address is chosen: who asks
// for a drain means it, and a registration that works goes before one that does not.
const (
	// Drain keeps known flows and takes no new ones.
	Drain State = iota
	// Active takes new flows.
	Active
	// Down is known and fails its checks.
	Down
	// Refused cannot be a backend as it is registered.
	Refused
)

func (s State) String() string {
	switch s {
	case Drain:
		return "drain"
	case Active:
		return "active"
	case Down:
		return "down"
	}
	return "refused"
}

// Verdict is what an instance amounts to.
type Verdict struct {
	ID ID
	// Backend is the address and weight. The weight is the one that the instance has when active,
	// also in the other states, except that a drain by weight has 0. A refused instance has no
	// backend, or one that another instance has.
	Backend lb.Backend
	State   State
	// Reason says why the state is not Active, or what was overridden or ignored; may be empty.
	Reason string
}

// WarningAction is what is done with instances whose worst check is a warning.
type WarningAction string

// The actions.
const (
	// WarningWeight gives them the weight for warnings of their definition; 0 drains them.
	WarningWeight WarningAction = "weight"
	// WarningDrain drains them.
	WarningDrain WarningAction = "drain"
)

// Rules say how instances become backends.
type Rules struct {
	// Ports are the ports of the VIPs that the instances serve. Encapsulated packets keep their
	// port, so that an instance with another port could not receive them. A port of 0 stands for
	// all.
	Ports []uint16
	// TaggedAddress, if not empty, is the name of the tagged address to use, such as "lan_ipv4":
	// the service's, else the node's. Instances without it are refused. If empty, the address is
	// the service's, else the node's.
	TaggedAddress string
	// Warning is what is done with instances that warn. Default WarningWeight.
	Warning WarningAction
	// VIPs are the addresses of all VIPs: a backend with one of them would send its packets round
	// in a circle. VIPPrefixes are those of VIPs that are prefixes.
	VIPs        map[netip.Addr]bool
	VIPPrefixes []netip.Prefix
}

// maxWeight is the greatest weight that a backend can have.
const maxWeight = 1_000_000

// JudgeAll judges instances and returns the verdicts ordered by address, refused ones without an
// address last. Of several instances with one address, one has it and the others are refused: the
// first by State, then by ID. The order of the instances does not matter.
func JudgeAll(instances []Instance, r Rules) []Verdict {
	verdicts := make([]Verdict, 0, len(instances))
	for i := range instances {
		verdicts = append(verdicts, Judge(&instances[i], r))
	}
	slices.SortFunc(verdicts, compareVerdicts)
	winner := 0
	for i := 1; i < len(verdicts); i++ {
		v, w := &verdicts[i], verdicts[winner]
		if v.State == Refused || v.Backend.Addr != w.Backend.Addr {
			winner = i
			continue
		}
		v.State, v.Reason = Refused, fmt.Sprintf("instance %s has the address %s", quote(w.ID.String()), w.Backend.Addr)
	}
	return verdicts
}

// compareVerdicts orders by address, state and id. What has no address comes last, and what is
// refused after what has the address. The reason comes into it only if Consul says the same id
// twice.
func compareVerdicts(a, b Verdict) int {
	if a.Backend.Addr.IsValid() != b.Backend.Addr.IsValid() {
		if a.Backend.Addr.IsValid() {
			return -1
		}
		return 1
	}
	return cmp.Or(
		a.Backend.Addr.Compare(b.Backend.Addr),
		cmp.Compare(a.State, b.State),
		a.ID.Compare(b.ID),
		cmp.Compare(a.Backend.Weight, b.Backend.Weight),
		strings.Compare(a.Reason, b.Reason),
	)
}

// Judge tells what one instance amounts to.
func Judge(i *Instance, r Rules) Verdict {
	v := Verdict{ID: i.ID()}
	text, port, err := i.endpoint(r.TaggedAddress)
	if err == nil {
		v.Backend.Addr, err = lb.ParseBackendAddr(text)
	}
	if err == nil {
		err = r.admit(v.Backend.Addr, port)
	}
	if err != nil {
		v.Backend = lb.Backend{}
		v.State, v.Reason = Refused, err.Error()
		return v
	}
	v.weigh(i, r.Warning)
	v.number(i)
	return v
}

// endpoint is the address and port at which the instance is to be reached.
func (i *Instance) endpoint(tagged string) (addr string, port int, err error) {
	if tagged == "" {
		return cmp.Or(i.Service.Address, i.Node.Address), i.Service.Port, nil
	}
	if t, ok := i.Service.TaggedAddresses[tagged]; ok {
		return t.Address, cmp.Or(t.Port, i.Service.Port), nil
	}
	if a, ok := i.Node.TaggedAddresses[tagged]; ok {
		return a, i.Service.Port, nil
	}
	return "", 0, fmt.Errorf("neither service nor node has the tagged address %s", quote(tagged))
}

// admit refuses what packets cannot be sent to.
func (r Rules) admit(addr netip.Addr, port int) error {
	inPrefix := slices.ContainsFunc(r.VIPPrefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
	if r.VIPs[addr] || inPrefix {
		return fmt.Errorf("address %s is a VIP's: packets would go round in a circle", addr)
	}
	// A service without a port says nothing that could be wrong.
	if port == 0 || slices.Contains(r.Ports, 0) {
		return nil
	}
	if port < 0 || port > 65535 || !slices.Contains(r.Ports, uint16(port)) {
		return fmt.Errorf("port %d is not the VIP's %s: encapsulation cannot translate ports", port, joinPorts(r.Ports))
	}
	return nil
}

func joinPorts(ports []uint16) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(ports)))
	texts := make([]string, len(sorted))
	for i, p := range sorted {
		texts[i] = strconv.Itoa(int(p))
	}
	return strings.Join(texts, " or ")
}

// weigh sets weight, state and reason from health and definition.
func (v *Verdict) weigh(i *Instance, warning WarningAction) {
	status, why, maintenance := i.health()
	var note string
	v.Backend.Weight, note = i.weight(status == statusWarning)
	switch {
	case maintenance != "":
		v.State, v.Reason = Drain, maintenance
	case status == statusCritical:
		v.State, v.Reason = Down, why
	case status == statusWarning && warning == WarningDrain:
		v.State, v.Reason = Drain, why
	case v.Backend.Weight == 0:
		v.State, v.Reason = Drain, cmp.Or(note, "weight 0")
	default:
		v.State, v.Reason = Active, cmp.Or(note, why)
	}
}

// weight is the instance's share. The label overrides the weight of an instance that passes; one
// that warns has the weight for that. The note says what was ignored.
func (i *Instance) weight(warning bool) (weight uint32, note string) {
	own := i.Service.Weights
	if own == (Weights{}) {
		own = Weights{1, 1} // Consul's default, which entries from outside an agent can lack
	}
	if warning {
		return clampWeight(own.Warning), ""
	}
	weight = clampWeight(own.Passing)
	text, ok := i.label(keyWeight)
	if !ok {
		return weight, ""
	}
	override, err := strconv.ParseUint(text, 10, 32)
	if err != nil || override > maxWeight {
		return weight, fmt.Sprintf("%s %s ignored: not 0 to %d", keyWeight, quote(text), maxWeight)
	}
	return uint32(override), ""
}

func clampWeight(w int) uint32 { return uint32(min(max(w, 0), maxWeight)) }

// number sets the backend's server id, if the instance has one.
func (v *Verdict) number(i *Instance) {
	text, ok := i.label(keyServerID)
	if !ok {
		return
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 0 {
		v.Reason = cmp.Or(v.Reason, fmt.Sprintf("%s %s ignored: not 1 to %d", keyServerID, quote(text), uint32(1<<32-1)))
		return
	}
	v.Backend.ServerID = uint32(id)
}

// quote is outside text, short enough for a reason.
func quote(s string) string {
	const longest = 128
	if len(s) > longest {
		return strconv.Quote(s[:longest]) + "..."
	}
	return strconv.Quote(s)
}
