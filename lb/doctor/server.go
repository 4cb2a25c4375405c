// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// Server is a server behind a balancer, to be examined.
type Server struct {
	*Machine
	// VIPs are those that it should serve.
	VIPs []lb.VIP
	// IPIP and GUE tell how balancers send packets: one of them, or both.
	IPIP, GUE bool
	// GUEPort is the outer UDP port of GUE.
	GUEPort uint16
	// Client, if valid, stands for all clients; else the default routes do.
	Client netip.Addr
}

// Examine makes all checks of a server.
func (s *Server) Examine(ctx context.Context) Report {
	return examine(ctx, s, []check[*Server]{
		{"VIPs", (*Server).checkAddresses},
		{"VIPs", (*Server).checkARP},
		{"VIPs", (*Server).checkListeners},
		{"tunnel", (*Server).checkDecapsulation},
		{"tunnel", (*Server).checkReversePath},
		{"tunnel", (*Server).checkAcceptLocal},
		{"way back", (*Server).checkReturn},
		{"way back", (*Server).checkSegments},
		{"way back", (*Server).checkICMP},
		{"filter", (*Server).checkFilter},
	})
}

// addresses are those of the VIPs, each once.
func (s *Server) addresses() (list []netip.Addr) {
	seen := make(map[netip.Addr]bool)
	for _, v := range s.VIPs {
		if !seen[v.Addr] {
			seen[v.Addr] = true
			list = append(list, v.Addr)
		}
	}
	return list
}

// returnRoutes are the ways of packets to clients of a family.
func (s *Server) returnRoutes(ipv6 bool) ([]Route, error) {
	if !s.Client.IsValid() || s.Client.Is6() != ipv6 {
		return s.Network.DefaultRoutes(ipv6)
	}
	r, err := s.Network.Route(s.Client)
	if err != nil {
		return nil, err
	}
	return []Route{r}, nil
}

// encapsulations names how packets come, as --encapsulation does.
func (s *Server) encapsulations() (list []lb.Encap) {
	if s.IPIP {
		list = append(list, lb.IPIP)
	}
	if s.GUE {
		list = append(list, lb.GUE)
	}
	return list
}
