// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package guest has the tests that run in the virtual machine of test/vm, and are skipped
// everywhere else: they need kernel modules, and the network cards of that machine.
package guest
