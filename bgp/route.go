// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// MaxPrepend is the largest Route.Prepend.
const MaxPrepend = 10

// Route is a prefix with its attributes.
type Route struct {
	// Prefix has no bits set beyond its length.
	Prefix netip.Prefix
	// NextHop is of the prefix's family. If it is not set, each peer gets its NextHop4 or
	// NextHop6, or where that is not set either, the session's local address.
	NextHop netip.Addr
	// Communities and LargeCommunities are sent to all peers, well-known ones included.
	Communities      []Community
	LargeCommunities []LargeCommunity
	// MED makes routers of one neighbouring AS prefer the smaller value. 0 sends none, which
	// routers take for 0.
	MED uint32
	// LocalPref goes to internal peers only; they prefer the greater value. 0 stands for 100.
	LocalPref uint32
	// Prepend is how many times more than once external peers see the local AS number in the AS
	// path. 0 to 10.
	Prepend int
}

// marker is the AS number of large communities that never leave the process: they tell the
// export policy what to do. It is reserved (RFC 7300).
const marker = 4294967295

// Validate reports all problems of the route.
func (r Route) Validate() error {
	var errs []error
	switch {
	case !r.Prefix.IsValid():
		errs = append(errs, errors.New("the prefix is not valid"))
	case r.Prefix != r.Prefix.Masked():
		errs = append(errs, fmt.Errorf("the prefix has bits set beyond its length: write %v", r.Prefix.Masked()))
	case r.Prefix.Addr().Is4In6():
		errs = append(errs, errors.New("the prefix is IPv4-mapped"))
	}
	if h := r.NextHop; h.IsValid() && (h.Is4() != r.Prefix.Addr().Is4() || h.IsUnspecified() || h.Zone() != "") {
		errs = append(errs, fmt.Errorf("next hop %v is not an address of the prefix's family", h))
	}
	for _, c := range r.LargeCommunities {
		if c.ASN == marker {
			errs = append(errs, fmt.Errorf("large community %v is reserved", c))
		}
	}
	if r.Prepend < 0 || r.Prepend > MaxPrepend {
		errs = append(errs, fmt.Errorf("prepend %d is not between 0 and %d", r.Prepend, MaxPrepend))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("route %v: %v", r.Prefix, err)
	}
	return nil
}

// normalized returns the route with its communities in order and once each, in slices of its own.
func (r Route) normalized() Route {
	r.Communities = slices.Compact(slices.Sorted(slices.Values(r.Communities)))
	r.LargeCommunities = slices.Compact(slices.SortedFunc(slices.Values(r.LargeCommunities), compareLarge))
	return r
}

func compareLarge(a, b LargeCommunity) int {
	return cmp.Or(cmp.Compare(a.ASN, b.ASN), cmp.Compare(a.Data1, b.Data1), cmp.Compare(a.Data2, b.Data2))
}

// equal compares normalized routes.
func (r Route) equal(o Route) bool {
	return r.Prefix == o.Prefix && r.NextHop == o.NextHop && r.MED == o.MED &&
		r.LocalPref == o.LocalPref && r.Prepend == o.Prepend &&
		slices.Equal(r.Communities, o.Communities) && slices.Equal(r.LargeCommunities, o.LargeCommunities)
}

// table is a set of normalized routes.
type table map[netip.Prefix]Route

// newTable makes a table of valid routes. It reports all that are not, and prefixes that come
// twice.
func newTable(routes []Route) (table, error) {
	t := make(table, len(routes))
	var errs []error
	for _, r := range routes {
		if err := r.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, twice := t[r.Prefix]; twice {
			errs = append(errs, fmt.Errorf("route %v: it is there twice", r.Prefix))
		}
		t[r.Prefix] = r.normalized()
	}
	return t, errors.Join(errs...)
}

// steps are what leads from one table to another, in the order of their prefixes.
type steps struct {
	// withdraw comes first: what cannot be served must go at once.
	withdraw []netip.Prefix
	// announce are new routes and those with other attributes, which replace the old.
	announce []Route
}

func diff(realised, wanted table) steps {
	var s steps
	for p := range realised {
		if _, ok := wanted[p]; !ok {
			s.withdraw = append(s.withdraw, p)
		}
	}
	for p, r := range wanted {
		if old, ok := realised[p]; !ok || !old.equal(r) {
			s.announce = append(s.announce, r)
		}
	}
	slices.SortFunc(s.withdraw, netip.Prefix.Compare)
	slices.SortFunc(s.announce, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return s
}
