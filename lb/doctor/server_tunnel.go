// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
)

// decapProgram is the name of the program of `remora decap`, as the kernel shows it.
const decapProgram = "remora_decap"

// opener is what unwraps packets: a program or a device on a link.
type opener struct {
	link Link
	// xdp tells that it is `remora decap`.
	xdp bool
}

// openers are the links on which packets are unwrapped; unknown tells that there are programs whose
// names cannot be read.
func (s *Server) openers() (list []opener, unknown bool, err error) {
	links, err := s.Network.Links()
	if err != nil {
		return nil, false, err
	}
	for _, l := range links {
		switch {
		case l.Program != 0 && l.ProgramName == decapProgram:
			list = append(list, opener{l, true})
		case l.Program != 0 && l.ProgramName == "":
			unknown = true
		}
		if slices.Contains([]string{"ipip", "ip6tnl", "sit"}, l.Type) {
			list = append(list, opener{l, false})
		}
	}
	return list, unknown, nil
}

// checkDecapsulation demands something that unwraps packets to each VIP.
func (s *Server) checkDecapsulation(context.Context) (found []Finding) {
	const id = "decapsulation"
	openers, unknown, err := s.openers()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	if i := slices.IndexFunc(openers, func(o opener) bool { return o.xdp }); i >= 0 {
		return s.checkDecap(id, openers[i].link)
	}
	for _, e := range s.encapsulations() {
		for _, vip := range s.addresses() {
			f := s.device(id, e, vip, openers)
			if f.Verdict == Fail && unknown {
				f = cannotTell(id, f.Object, fmt.Errorf("an XDP program is there whose name cannot be read: %w", fs.ErrPermission), "root")
			}
			found = append(found, f)
		}
	}
	return gathered(found)
}

// checkDecap looks at what `remora decap` accepts.
func (s *Server) checkDecap(id string, l Link) []Finding {
	accepts, err := s.BPF.Decapsulator(l.Program)
	if errors.Is(err, fs.ErrPermission) {
		return []Finding{fine(id, l.Name, "remora decap is attached"), cannotTell("decapsulation-vips", l.Name, err, "root")}
	}
	if err != nil {
		return []Finding{cannotTell(id, l.Name, err, "a program of this version of remora decap")}
	}
	var found []Finding
	for _, vip := range s.addresses() {
		if len(accepts.VIPs) > 0 && !slices.Contains(accepts.VIPs, vip) {
			found = append(found, fail("decapsulation-vips", vip.String(), "remora decap on %s does not accept packets for it, but for %s only",
				l.Name, some(texts(accepts.VIPs))).
				cure("remora decap --interface %s with --vip %s beside the others", l.Name, vip))
		}
	}
	return append(found, fine(id, l.Name, "remora decap is attached, for packets to %s", some(texts(accepts.Addresses))))
}

// device looks for a tunnel device of the kernel's that unwraps packets to a VIP.
func (s *Server) device(id string, e lb.Encap, vip netip.Addr, openers []opener) Finding {
	object := fmt.Sprintf("%s by %v", vip, e)
	// IPv4 in IPv4 is ipip's, IPv6 in IPv4 sit's, and all in IPv6 ip6tnl's. With GUE the same devices
	// take what the fou module has unwrapped.
	kind, modern := "ipip", "ip link set tunl0 up (modprobe ipip)"
	if vip.Is6() {
		kind, modern = "sit", "ip link set sit0 up (modprobe sit)"
	}
	decap := fmt.Sprintf("remora decap --interface DEVICE --vip %s; or the kernel's device: %s", vip, modern)
	var down, narrow string
	var up []string
	for _, o := range openers {
		switch l := o.link; {
		case l.Type != kind && l.Type != "ip6tnl":
		case !l.Up:
			down = l.Name
		case l.Remote.IsValid() && !l.Remote.IsUnspecified():
			narrow = fmt.Sprintf("%s takes packets of %s only, but balancers send from many addresses", l.Name, l.Remote)
		default:
			up = append(up, l.Name)
		}
	}
	switch {
	case len(up) == 0 && narrow != "":
		return fail(id, object, "%s", narrow).cure("%s", decap)
	case len(up) == 0 && down != "":
		return fail(id, object, "the tunnel device %s is down: packets are not unwrapped", down).cure("ip link set %s up", down)
	case len(up) == 0:
		return fail(id, object, "nothing unwraps packets: no remora decap, and no device of the types %s and ip6tnl", kind).cure("%s", decap)
	case e == lb.GUE:
		return s.fou(id, object, up)
	}
	return fine(id, object, "the tunnel device %s is up", some(up))
}

// fou looks for the kernel's own unwrapping of GUE.
func (s *Server) fou(id, object string, devices []string) Finding {
	ports, err := s.Network.GUEPorts()
	add := fmt.Sprintf("ip fou add port %d gue (modprobe fou); or remora decap --interface DEVICE", s.GUEPort)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fail(id, object, "the kernel has no fou module: nothing takes UDP packets to port %d", s.GUEPort).cure("%s", add)
	case err != nil:
		return cannotTell(id, object, err, "the fou module")
	case !slices.Contains(ports, s.GUEPort):
		return fail(id, object, "nothing takes UDP packets to port %d", s.GUEPort).cure("%s", add)
	}
	return fine(id, object, "fou has port %d, and the tunnel device %s is up", s.GUEPort, some(devices))
}

// checkReversePath looks where unwrapped packets come in: their senders are clients, who are behind
// another interface than a tunnel device.
func (s *Server) checkReversePath(context.Context) (found []Finding) {
	const id = "rp-filter"
	openers, _, err := s.openers()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	if !slices.ContainsFunc(s.VIPs, func(v lb.VIP) bool { return v.Addr.Is4() }) {
		return nil // IPv6 has no such filter in /proc/sys
	}
	for _, o := range openers {
		if o.xdp || o.link.Up {
			found = append(found, s.reversePath(id, o))
		}
	}
	return found
}

func (s *Server) reversePath(id string, o opener) Finding {
	iface := o.link.Name
	n, err := s.setting(iface, "rp_filter")
	if err != nil {
		return cannotTell(id, iface, err, "leave to read /proc/sys")
	}
	if n == loose && !o.xdp {
		return note(id, iface, "rp_filter is loose: enough only if the tunnel device has an IPv4 address").cure("%s", softerFilter(o))
	}
	if n != strict {
		return fine(id, iface, "rp_filter is %d", n)
	}
	routes, err := s.returnRoutes(false)
	if err != nil {
		return cannotTell(id, iface, err, "netlink")
	}
	if slices.ContainsFunc(routes, func(r Route) bool { return r.uses(iface) }) {
		return note(id, iface, "rp_filter is strict: packets of clients that are not routed out of %s are dropped", iface).
			cure("%s", softerFilter(o))
	}
	return fail(id, iface, "rp_filter is strict, and answers to clients do not leave by %s: what is unwrapped there is dropped in silence", iface).
		cure("%s", softerFilter(o))
}

// softerFilter makes the filter loose, or turns it off at a tunnel device: the loose one drops everything
// that comes out of a device without an address (net/ipv4/fib_frontend.c, __fib_validate_source). The
// greater of both settings counts.
func softerFilter(o opener) string {
	value := 0
	if o.xdp {
		value = loose
	}
	return fmt.Sprintf("sysctl -w net/ipv4/conf/all/rp_filter=%d net/ipv4/conf/%s/rp_filter=%d", value, o.link.Name, value)
}

// checkAcceptLocal matters only where a server is a client, too.
func (s *Server) checkAcceptLocal(context.Context) []Finding {
	const id = "accept-local"
	openers, _, err := s.openers()
	if err != nil || len(openers) == 0 {
		return nil // decapsulation says so
	}
	iface := openers[0].link.Name
	n, err := s.setting(iface, "accept_local")
	if err != nil {
		return []Finding{cannotTell(id, iface, err, "leave to read /proc/sys")}
	}
	return []Finding{fine(id, iface, "accept_local is %d: it matters only if this server's own packets came back through a balancer, "+
		"which they do not while it has the VIP itself", n)}
}

// filterTime bounds the reading of the rules.
const filterTime = 5 * time.Second

// checkFilter notes what packet filters may drop. Only the rules' text is looked at.
func (s *Server) checkFilter(ctx context.Context) []Finding {
	const id = "packet-filter"
	ctx, cancel := context.WithTimeout(ctx, filterTime)
	defer cancel()
	rules, err := s.PacketFilter(ctx)
	if err != nil {
		return []Finding{cannotTell(id, "", err, "the program nft, and root")}
	}
	openers, _, err := s.openers()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	what := "protocol 4 (ipencap), protocol 41 (ipv6) or UDP port " + fmt.Sprint(s.GUEPort)
	if slices.ContainsFunc(openers, func(o opener) bool { return o.xdp }) {
		what = "the inner packets, to the VIPs: remora decap unwraps before filters look"
	}
	if suspect := suspicious(rules); len(suspect) > 0 {
		return []Finding{note(id, "", "nftables may drop what comes in (%s): it must let pass %s", some(suspect), what).
			cure("nft list ruleset; nft monitor trace")}
	}
	return []Finding{fine(id, "", "no chain of nftables drops what comes in by its policy, and no rule names a tunnel")}
}

// suspicious are lines of a ruleset that may drop tunnelled packets: base chains of the way in that
// drop by policy, and dropping rules about a tunnel's protocol.
func suspicious(rules string) (lines []string) {
	for line := range strings.Lines(rules) {
		line = strings.TrimSpace(line)
		in := strings.Contains(line, "hook input") || strings.Contains(line, "hook prerouting")
		drops := strings.Contains(line, "drop") || strings.Contains(line, "reject")
		tunnel := slices.ContainsFunc([]string{"ipencap", "protocol 4 ", "protocol 41 ", "protocol ipv6 ", "nexthdr 4 ", "nexthdr 41 ", "l4proto 4 ",
			"l4proto 41 ", "l4proto ipencap", "l4proto ipv6 ", "6080"},
			func(word string) bool { return strings.Contains(line+" ", word) })
		if in && strings.Contains(line, "policy drop") || drops && tunnel {
			lines = append(lines, line)
		}
	}
	return lines
}
