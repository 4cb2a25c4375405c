// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package tools keeps the developers' tools in a module of their own, so that what they need stays
// out of remora's: see `make lint`.
package tools
