// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package api holds the definition of the control API, remora/v1/control.proto, and what is
// generated of it: the messages in remora/v1, clients and handlers in remora/v1/remorav1connect.
// Fields are only added, never changed or renumbered; what cannot be said that way becomes a v2.
package api

// protoc is Debian's protobuf-compiler.
//go:generate sh -c "protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-connect-go=$(go tool -n protoc-gen-connect-go) --go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative remora/v1/control.proto"
