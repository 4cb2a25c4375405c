// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package offload is about cards that run XDP programs themselves: it holds remora's program for them
// (Spec), writes its tables (Encode), and says of any XDP object whether a card would take it (Check),
// without privileges and without a card. docs/offload.md describes all three.
package offload
