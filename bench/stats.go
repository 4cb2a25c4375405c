// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import "slices"

// quantile returns the value below which the share q (0 to 1) of x lies, between neighbours by
// their distance; 0 if x is empty.
func quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(x))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func median(x []float64) float64 { return quantile(x, 0.5) }

// halfRange is half the distance between the least and the greatest of x; 0 if x is empty.
func halfRange(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	return (slices.Max(x) - slices.Min(x)) / 2
}

// pair is what a packet costs, in ns, in two neighbouring chunks.
type pair struct{ baseline, target float64 }

// pairChunks reads the times of one run. times[i] is what the packets of chunk i-1 took, in ns, and
// the baseline has the even chunks; times[0] is void. The first warm chunks do not count (caches,
// branch predictors, clock frequency).
func pairChunks(times []uint32, warm, packets int) []pair {
	var pairs []pair
	for i := warm | 1; i+1 < len(times); i += 2 {
		p := pair{float64(times[i]) / float64(packets), float64(times[i+1]) / float64(packets)}
		if p.baseline > 0 {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// sample is one run: the medians of its pairs, which leave out chunks with an interrupt in them.
type sample struct {
	// path is the target's time for a packet in ns, net the same above the baseline, rel the
	// latter in units of the baseline, in which the state of the machine cancels.
	path, net, rel float64
}

func newSample(pairs []pair) sample {
	var path, net, rel []float64
	for _, p := range pairs {
		path = append(path, p.target)
		net = append(net, p.target-p.baseline)
		rel = append(rel, (p.target-p.baseline)/p.baseline)
	}
	return sample{median(path), median(net), median(rel)}
}
