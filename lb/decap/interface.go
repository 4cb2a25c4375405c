// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb/attach"
)

// InterfaceAddrs returns the addresses of an interface that balancers can send to: all that are
// neither loopback nor link-local, sorted. They are read once; later changes are not followed.
func InterfaceAddrs(name string) ([]netip.Addr, error) {
	ifi, err := attach.Interface(name)
	if err != nil {
		return nil, err
	}
	nets, err := ifi.Addrs()
	if err != nil {
		return nil, fmt.Errorf("read addresses of interface %q: %v", name, err)
	}
	var addrs []netip.Addr
	for _, n := range nets {
		p, err := netip.ParsePrefix(n.String())
		if err == nil && p.Addr().Unmap().IsGlobalUnicast() {
			addrs = append(addrs, p.Addr().Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("interface %q has no address (link-local ones do not count): name the addresses that the balancers send to", name)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
