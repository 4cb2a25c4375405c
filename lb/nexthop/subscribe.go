// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// subscription receives the kernel's notifications.
type subscription interface {
	// receive waits for notifications. The error unix.ENOBUFS says that some were lost and more
	// will come; but until the buffer was found empty, further ones may be lost without another
	// error (NETLINK_S_CONGESTED of net/netlink/af_netlink.c), so the subscription should be
	// replaced. After any other error nothing will come.
	receive() ([]event, error)
	// close ends a receive that is waiting, with an error.
	close()
}

// event is a notification: of one neighbour, or that links or routes have changed in some way.
type event struct {
	kind  eventKind
	key   neighbourKey
	entry neighbour // zero if it was deleted
}

type eventKind uint8

const (
	linkEvent eventKind = iota
	routeEvent
	neighbourEvent
)

// neighbourKey names an entry of the kernel's neighbour table.
type neighbourKey struct {
	index int
	addr  netip.Addr
}

// receiveBufferBytes holds some ten thousand notifications. The default buffer overruns below one
// thousand. The kernel doubles it, to account for its own overhead.
const receiveBufferBytes = 8 << 20

// groups are the notifications that are subscribed to. The kernel removes routes without a word
// when a link goes down or an address goes away, and rules and nexthop objects change what a
// route means.
func groups() []uint {
	return []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP,
	}
}

// netlinkSubscription is one socket for all groups, so that notifications keep their order.
type netlinkSubscription struct{ socket *nl.NetlinkSocket }

func (k *netlinkKernel) subscribe() (subscription, error) {
	socket, err := k.openSocket()
	if err != nil {
		return nil, fmt.Errorf("subscribe to link, route and neighbour changes: %v", err)
	}
	// Beyond net.core.rmem_max the size must be forced, which needs CAP_NET_ADMIN.
	if socket.SetReceiveBufferSize(receiveBufferBytes, true) != nil {
		if err := socket.SetReceiveBufferSize(receiveBufferBytes, false); err != nil {
			socket.Close()
			return nil, fmt.Errorf("set receive buffer of %d bytes: %v", receiveBufferBytes, err)
		}
	}
	return netlinkSubscription{socket}, nil
}

// openSocket changes the thread's namespace only if it must, because that takes CAP_SYS_ADMIN even
// where it changes nothing.
func (k *netlinkKernel) openSocket() (*nl.NetlinkSocket, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer here.Close()
	if here.Equal(k.ns) {
		return nl.Subscribe(unix.NETLINK_ROUTE, groups()...)
	}
	return nl.SubscribeAt(k.ns, here, unix.NETLINK_ROUTE, groups()...)
}

func (s netlinkSubscription) close() { s.socket.Close() }

func (s netlinkSubscription) receive() ([]event, error) {
	for {
		messages, from, err := s.socket.Receive()
		if err != nil {
			return nil, err
		}
		if from.Pid != nl.PidKernel {
			continue // any process may send to the socket
		}
		return decode(messages)
	}
}

// decode translates notifications, and leaves out those that say nothing about next hops.
func decode(messages []syscall.NetlinkMessage) ([]event, error) {
	events := make([]event, 0, len(messages))
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			events = append(events, event{kind: linkEvent})
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			e, ok, err := decodeNeighbour(m)
			if err != nil {
				return nil, err
			}
			if ok {
				events = append(events, e)
			}
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWADDR, unix.RTM_DELADDR,
			unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
			events = append(events, event{kind: routeEvent})
		}
	}
	return events, nil
}

func decodeNeighbour(m syscall.NetlinkMessage) (e event, ok bool, err error) {
	if len(m.Data) < unix.SizeofNdMsg {
		return event{}, false, fmt.Errorf("read neighbour notification: %d bytes are too few", len(m.Data))
	}
	if family := m.Data[0]; family != unix.AF_INET && family != unix.AF_INET6 {
		return event{}, false, nil // a bridge's forwarding table
	}
	n, err := netlink.NeighDeserialize(m.Data)
	if err != nil {
		return event{}, false, fmt.Errorf("read neighbour notification: %v", err)
	}
	addr, entry, ok := neighbourOf(n)
	if m.Header.Type == unix.RTM_DELNEIGH {
		entry = neighbour{}
	}
	return event{kind: neighbourEvent, key: neighbourKey{n.LinkIndex, addr}, entry: entry}, ok, nil
}
