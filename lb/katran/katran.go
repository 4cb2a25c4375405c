// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package katran is the way from Katran to remora: it reads a dump of Katran's configuration and makes
// remora's file of it, and it tells what a file of remora would do otherwise than Katran does.
//
// docs/katran-migration.md has the form of the dump. Everything here is a pure function.
package katran

// What Katran is unless it is built otherwise.
const (
	// RingSize is how many slots each ring has.
	RingSize = 65537
	// MaxVIPs is how many VIPs there can be; it is the seed of the flows' hash, too.
	MaxVIPs = 512
	// MaxReals is how many reals there can be, with id 0, which is none.
	MaxReals = 4096
	// GUEPort is the outer UDP destination port.
	GUEPort = 6080
	// maxDecapDestinations is how many outer destinations inline decapsulation knows.
	maxDecapDestinations = 6
	// maxServerID is the last element of the array that leads server ids to reals.
	maxServerID = 0xfffffe - 1
)
