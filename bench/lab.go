// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// side is one end of the veth pair, in a network namespace of its own.
type side struct {
	name   string // of the namespace
	ns     netns.NsHandle
	handle *netlink.Handle
	index  int
}

// lab is a veth pair between two namespaces: the generator sends on one end and takes what comes
// back, the program under test runs on the other. close must be called; one goroutine uses it.
type lab struct{ generator, tested side }

// namespaceNames are those of this process's lab; there is one lab at a time.
func namespaceNames() (generator, tested string) {
	return fmt.Sprintf("remora-bench-%d-generator", os.Getpid()), fmt.Sprintf("remora-bench-%d-tested", os.Getpid())
}

// openLab makes namespaces and pair; if it fails, it leaves nothing behind.
func openLab() (*lab, error) {
	generator, tested := namespaceNames()
	l := &lab{}
	err := l.generator.open(generator)
	if err == nil {
		err = l.tested.open(tested)
	}
	if err == nil {
		err = l.connect()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make veth lab: %v", err), l.close())
	}
	return l, nil
}

// close removes pair and namespaces.
func (l *lab) close() error { return errors.Join(l.generator.close(), l.tested.close()) }

// open makes the namespace. The name is taken as ours only once it exists by us.
func (s *side) open(name string) error {
	return onThread(func() error { // NewNamed moves the calling thread
		ns, err := netns.NewNamed(name)
		if err != nil {
			if !errors.Is(err, os.ErrExist) {
				_ = os.Remove(namespacePath(name)) // it may have failed between file and mount
			}
			return fmt.Errorf("make namespace %q: %v", name, err)
		}
		s.name, s.ns = name, ns
		if s.handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open netlink in namespace %q: %v", name, err)
		}
		return nil
	})
}

func (s *side) close() error {
	if s.handle != nil {
		s.handle.Close()
	}
	if s.name == "" {
		return nil
	}
	return errors.Join(s.ns.Close(), netns.DeleteNamed(s.name))
}

// namespacePath is where netns.NewNamed puts a name.
func namespacePath(name string) string { return "/run/netns/" + name }

// connect makes the pair.
func (l *lab) connect() error { return connectSides(&l.generator, &l.tested, "generator", "tested") }

// connectSides makes a pair of devices: one queue each, no IPv6 addresses, so that the kernel sends
// nothing. The sides have the indexes then.
func connectSides(client, balancer *side, clientDev, balancerDev string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = clientDev, 1, 1
	attrs.HardwareAddr = net.HardwareAddr(clientMAC)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNumTxQueues, veth.PeerNumRxQueues = balancerDev, 1, 1
	veth.PeerHardwareAddr = net.HardwareAddr(balancerMAC)
	veth.PeerNamespace = netlink.NsFd(balancer.ns)
	if err := client.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair: %v", err)
	}
	if err := client.up(clientDev); err != nil {
		return err
	}
	return balancer.up(balancerDev)
}

func (s *side) up(dev string) error {
	dl, err := s.handle.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find device %s: %v", dev, err)
	}
	s.index = dl.Attrs().Index
	// Fails only where the kernel has no IPv6, which then sends nothing either.
	_ = s.handle.LinkSetIP6AddrGenMode(dl, nl.IN6_ADDR_GEN_MODE_NONE)
	if err := s.handle.LinkSetUp(dl); err != nil {
		return fmt.Errorf("set device %s up: %v", dev, err)
	}
	return nil
}

// received is the number of frames that the device has taken in.
func (s *side) received() (uint64, error) {
	dl, err := s.handle.LinkByIndex(s.index)
	if err != nil {
		return 0, fmt.Errorf("read device statistics: %v", err)
	}
	st := dl.Attrs().Statistics
	if st == nil {
		return 0, errors.New("read device statistics: there are none")
	}
	return st.RxPackets, nil
}

// attach attaches p natively to this end.
func (s *side) attach(p *ebpf.Program) (link.Link, error) {
	var l link.Link
	err := onThread(func() (err error) {
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("enter namespace %q: %v", s.name, err)
		}
		l, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: s.index, Flags: link.XDPDriverMode})
		return err
	})
	return l, err
}
