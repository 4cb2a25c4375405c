// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// nearestShown is how many names an error offers instead of the one that is not there.
const nearestShown = 3

// unknown is the error about a selection that names nothing of what st has.
func unknown(st Status, s Selection) *Error {
	var vips, with, backends []string // all VIPs, those with the backend, backends of what was meant
	for _, service := range st.Services {
		for _, v := range service.VIPs {
			vips = append(vips, v.VIP.String())
			for _, r := range v.Reals {
				if r.Backend.Addr == s.Backend {
					with = append(with, v.VIP.String())
				}
				if s.VIP == (lb.VIP{}) || s.VIP == v.VIP {
					backends = append(backends, r.Backend.Addr.String())
				}
			}
		}
	}
	vip, backend := s.VIP.String(), s.Backend.String()
	switch {
	case s.VIP == (lb.VIP{}):
		return &Error{CodeNotFound, backend, fmt.Sprintf("no VIP has the backend %s", backend), offer(backend, backends)}
	case !slices.Contains(vips, vip):
		return &Error{CodeNotFound, vip, fmt.Sprintf("there is no VIP %s", vip), offer(vip, vips)}
	}
	e := &Error{CodeNotFound, s.String(), fmt.Sprintf("VIP %s has no backend %s", vip, backend), offer(backend, backends)}
	if len(with) > 0 {
		e.Cure = fmt.Sprintf("%s has it; %s", strings.Join(nearest(vip, with), ", "), e.Cure)
	}
	return e
}

// offer says which names there are.
func offer(name string, names []string) string {
	if len(names) == 0 {
		return "there is none"
	}
	return "the nearest: " + strings.Join(nearest(name, names), ", ")
}

// nearest are the few names that are most like one, the most like it first, each once.
func nearest(name string, names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	return names[:min(nearestShown, len(names))]
}

// distance is the number of characters to put in, take out or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for k := range row {
		row[k] = k
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			replaced := diagonal
			if a[i] != b[k] {
				replaced++
			}
			diagonal = row[k+1]
			row[k+1] = min(replaced, row[k]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
