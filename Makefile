# The two commands of a newcomer: `make demo` and `make test`. Both install what they need.
# SPDX-License-Identifier: Apache-2.0

# Objects differ between majors of clang, so one is pinned; CI regenerates with it and compares.
CLANG_MAJOR = 19
BPF_CFLAGS = -I/usr/include/$(shell uname -m)-linux-gnu
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS = -s -w -X main.version=$(VERSION)

.PHONY: build demo test build-consul race crash churn fuzz lint generate check-generated bench clean help install-run-tools install-build-tools

build: ## build bin/remora
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/remora ./cmd/remora

demo: build install-run-tools ## show a balancer at work in network namespaces; KEEP=1 leaves it up, CONSUL=1 shows Consul, BGP=1 two balancers and FRR
	$(GO) run ./test/demo --binary bin/remora $(if $(KEEP),--keep) $(if $(CONSUL),--consul) $(if $(BGP),--bgp)

# One package at a time: many tests are about what happens within a second.
test: install-run-tools build-consul ## run every test; as root, those that need root must not be skipped
	$(GO) build ./...
	REMORA_REQUIRE_ROOT=$(if $(filter 0,$(shell id -u)),1,0) $(GO) test -p 1 -count=1 -timeout 10m ./...

# Go keeps what it built: only the first time takes minutes.
build-consul: ## build the Consul of the tests and the demo
	@cd test/consul/tool && nice $(GO) tool -n consul > /dev/null

race: install-run-tools install-build-tools ## run the tests of the Go parts three times with the race detector
	REMORA_REQUIRE_ROOT=$(if $(filter 0,$(shell id -u)),1,0) CGO_ENABLED=1 $(GO) test -p 1 -race -count=3 -timeout 30m $(shell $(GO) list ./... | grep -v /test/)

CRASHES ?= 200
crash: install-run-tools ## kill the daemon CRASHES times while it changes things under traffic
	REMORA_REQUIRE_ROOT=1 REMORA_CRASHES=$(CRASHES) $(GO) test -count=1 -timeout 20m -run TestCrashes -v ./test/e2e

FUZZTIME ?= 10s
FUZZ_TARGETS = lb/config:FuzzParse lb/maglev:FuzzBuild lb/model:FuzzProcess test/differential:FuzzProgram \
	test/differential:FuzzSequence lb/store:FuzzLoad lb/control:FuzzRequest lb/discovery/consul:FuzzDecode bgp/bfd:FuzzDecode
fuzz: install-run-tools ## look for inputs that break parsers, rings, the model or the program
	GO='$(GO)' test/fuzz $(FUZZTIME) $(FUZZ_TARGETS)

# ST1005: messages may begin with the name of a field, which is capitalized.
lint: ## formatting, vet and staticcheck (the import arrows are a test)
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=test/tools/go.mod staticcheck -checks inherit,-ST1005 ./...

generate: install-build-tools ## compile bpf/ and regenerate the Go bindings
	BPF_CFLAGS='$(BPF_CFLAGS)' $(GO) generate ./...

check-generated: generate ## fail if committed objects are not what bpf/ compiles to
	git diff --exit-code --stat -- '*_bpfel.go' '*_bpfel.o' '*.pb.go' '*.connect.go'

# Machines are noisy for minutes at times; a regression fails twice.
bench: build ## ns per packet as ratios to reference programs, and the promised limits
	bin/remora bench prog --gate || bin/remora bench prog --gate

CHURN = --flows 5000 --window 2s --modes transitions,never
churn: build ## change, drain and kill things under thousands of live flows, and count those that break
	bin/remora bench churn $(CHURN) --gate

install-run-tools:
	@test/install-packages nginx-light=nginx curl=curl iputils-ping=ping frr=/usr/lib/frr/bgpd bird2=bird nftables=nft unbound=unbound

install-build-tools:
	@test/install-packages clang-$(CLANG_MAJOR)=clang-$(CLANG_MAJOR) llvm-$(CLANG_MAJOR)=llvm-strip-$(CLANG_MAJOR) \
		protobuf-compiler=protoc libbpf-dev=/usr/include/bpf/bpf_helpers.h linux-libc-dev=/usr/include/linux/bpf.h gcc=gcc

clean: ## remove bin/
	rm -rf bin

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20
