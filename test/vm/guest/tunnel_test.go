// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// guePort is the UDP port of GUE, the program's default and the kernel's example.
const guePort = 6080

// tunnelDevices open IPv4 in IPv4, and both in IPv6, whoever sent it.
func tunnelDevices() []netlink.Link {
	return []netlink.Link{
		&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "in4"}, FlowBased: true},
		&netlink.Ip6tnl{LinkAttrs: netlink.LinkAttrs{Name: "in6"}, FlowBased: true},
	}
}

// sitDevice opens IPv6 in IPv4. It is there since its module is, and takes what no other does.
const sitDevice = "sit0"

// openTunnels makes a server open what balancers send, with what the kernel has. open opens the ports
// for what comes in UDP.
func openTunnels(t *testing.T, n *rig.Node, open func() error) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		for _, device := range tunnelDevices() {
			if err := netlink.LinkAdd(device); err != nil {
				return fmt.Errorf("add %s device: %v", device.Type(), err)
			}
			if err := netlink.LinkSetUp(device); err != nil {
				return fmt.Errorf("set %s device up: %v", device.Type(), err)
			}
		}
		sit, err := netlink.LinkByName(sitDevice)
		if err != nil {
			return fmt.Errorf("find %s: %v", sitDevice, err)
		}
		return errors.Join(netlink.LinkSetUp(sit), open())
	}))
}

// openGUE opens the port in both families.
func openGUE() error {
	return errors.Join(addPort(unix.AF_INET, netlink.FOU_ENCAP_GUE, 0), addPort(unix.AF_INET6, netlink.FOU_ENCAP_GUE, 0))
}

// openFOU opens the port for one protocol in IPv4.
func openFOU(protocol uint8) func() error {
	return func() error { return addPort(unix.AF_INET, netlink.FOU_ENCAP_DIRECT, protocol) }
}

// addPort makes the kernel hand on what it gets in UDP packets of a family to guePort: of GUE, which
// says what is inside, or plainly of one protocol. (The library's function sends a protocol along with
// GUE, too, which kernels refuse.)
func addPort(family uint8, kind uint8, protocol uint8) error {
	id, err := netlink.FouFamilyId()
	if err != nil {
		return fmt.Errorf("find the kernel's module fou: %v", err)
	}
	const version = 1
	message := []byte{netlink.FOU_CMD_ADD, version, 0, 0}
	attributes := []*nl.RtAttr{
		nl.NewRtAttr(netlink.FOU_ATTR_PORT, binary.BigEndian.AppendUint16(nil, guePort)),
		nl.NewRtAttr(netlink.FOU_ATTR_TYPE, []byte{kind}),
		nl.NewRtAttr(netlink.FOU_ATTR_AF, []byte{family}),
	}
	if protocol != 0 {
		attributes = append(attributes, nl.NewRtAttr(netlink.FOU_ATTR_IPPROTO, []byte{protocol}))
	}
	for _, a := range attributes {
		message = append(message, a.Serialize()...)
	}
	request := nl.NewNetlinkRequest(id, unix.NLM_F_ACK)
	request.AddRawData(message)
	if _, err := request.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return fmt.Errorf("open UDP port %d in family %d: %v", guePort, family, err)
	}
	return nil
}

// deviceFor is the device that opens packets to a VIP with an outer header of a family.
func deviceFor(outer6 bool, vip netip.Addr) string {
	switch {
	case outer6:
		return "in6"
	case vip.Is6():
		return sitDevice
	}
	return "in4"
}
