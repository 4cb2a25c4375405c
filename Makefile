# The two commands of a newcomer: `make demo` and `make test`. Both install what they need.
# SPDX-License-Identifier: Apache-2.0

# Objects differ between majors of clang, so one is pinned; CI regenerates with it and compares.
CLANG_MAJOR = 19
BPF_CFLAGS = -I/usr/include/$(shell uname -m)-linux-gnu
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS = -s -w -X main.version=$(VERSION)

.PHONY: build release release-check demo test build-consul race crash churn fuzz lint generate check-generated bench gate bench-record rig-test clean help install-run-tools install-build-tools install-release-tools

build: ## build bin/remora
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/remora ./cmd/remora

# Cards with a Linux of their own have Arm cores; the packet programs are the same for both.
release: ## build bin/remora-linux-amd64 and bin/remora-linux-arm64
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/remora-linux-$$arch ./cmd/remora || exit 1; \
	done

release-check: release install-release-tools ## on amd64: see that the arm64 binary, emulated, says what the other says
	test/release-check bin/remora-linux-amd64 bin/remora-linux-arm64 qemu-aarch64-static

demo: build install-run-tools ## show a balancer at work in network namespaces; then two behind an FRR router; KEEP=1 leaves the first up, CONSUL=1 shows Consul
	$(GO) run ./test/demo --binary bin/remora $(if $(KEEP),--keep) $(if $(CONSUL),--consul) $(if $(BGP),--bgp)
	$(if $(KEEP)$(CONSUL)$(BGP),,$(GO) run ./test/demo --binary bin/remora --bgp)

# One package at a time: many tests are about what happens within a second.
test: install-run-tools build-consul ## run every test; as root, those that need root must not be skipped
	$(GO) build ./...
	REMORA_REQUIRE_ROOT=$(if $(filter 0,$(shell id -u)),1,0) $(GO) test -p 1 -count=1 -timeout 10m ./...

# Go keeps what it built: only the first time takes minutes.
build-consul: ## build the Consul of the tests and the demo
	@cd test/consul/tool && nice $(GO) tool -n consul > /dev/null

RACES ?= 3
race: install-run-tools install-build-tools ## run the tests of the Go parts RACES times with the race detector
	REMORA_REQUIRE_ROOT=$(if $(filter 0,$(shell id -u)),1,0) CGO_ENABLED=1 $(GO) test -p 1 -race -count=$(RACES) -timeout 30m $(shell $(GO) list ./... | grep -v /test/)

CRASHES ?= 200
crash: install-run-tools ## kill the daemon CRASHES times while it changes things under traffic
	REMORA_REQUIRE_ROOT=1 REMORA_CRASHES=$(CRASHES) $(GO) test -count=1 -timeout 20m -run TestCrashes -v ./test/e2e

FUZZTIME ?= 10s
FUZZ_TARGETS = lb/config:FuzzParse lb/maglev:FuzzBuild lb/model:FuzzProcess lb/model:FuzzWorld test/differential:FuzzProgram test/differential:FuzzWorld \
	test/differential:FuzzSequence lb/store:FuzzLoad lb/control:FuzzRequest lb/discovery/consul:FuzzDecode bgp/bfd:FuzzDecode \
	lb/offload:FuzzCheck lb/katran:FuzzRead
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

# What suits two cores and five minutes. Machines are noisy for minutes at times; a regression fails twice. Of traffic
# over two cores that everything else runs on, too, some is lost for no reason of the program's.
bench: build ## measure, judge by the promised limits and the committed record, and renew the tables of docs/performance.md
	mkdir -p bin/bench
	bin/remora bench prog --gate --save bin/bench/prog.json || bin/remora bench prog --gate --save bin/bench/prog.json
	bin/remora bench veth --reloads 2 --rounds 5 --save bin/bench/veth.json > bin/bench/veth.txt
	bin/remora bench pktgen --search --sizes 64,1514,imix --trial 300ms --curve 4 --max-loss 0.001 --save bin/bench/traffic.json > bin/bench/traffic.txt
	bin/remora bench control --scales 10x100x4093,1000x100x4093 --save bin/bench/control.json > bin/bench/control.txt
	bin/remora bench report bin/bench/*.json -o bin/bench/report.html --into docs/performance.md

gate: build ## only judge by the promised limits and the committed record, as CI does
	bin/remora bench prog --gate || bin/remora bench prog --gate

# Only after a change that is meant to cost something, and on a quiet machine; commit what it writes.
bench-record: build ## take the record that the gate of make bench compares with
	bin/remora bench prog --take-record bench/record.json

CHURN = --flows 5000 --window 2s --modes transitions,never
churn: build ## change, drain and kill things under thousands of live flows, and count those that break
	bin/remora bench churn $(CHURN) --gate

# RIG=full adds what takes minutes; KERNEL=6.12 takes a newer kernel, if apt knows it. What cannot be
# done on this machine is skipped with the reason, unless REMORA_REQUIRE_VM=1.
KERNEL ?= 6.1
rig-test: build ## run tests in a virtual machine: the oldest kernel, the kernel's own tunnels, simulated cards
	-@test/install-packages qemu-system-x86=qemu-system-x86_64 busybox-static=busybox gcc-12=gcc-12 make=make \
		binutils=strip xz-utils=xz libelf1=$(firstword $(wildcard /usr/lib/*/libelf.so.1) /usr/lib/libelf.so.1)
	$(GO) build -o bin/vm ./test/vm
	bin/vm --binary bin/remora --kernel $(KERNEL) $(if $(filter full,$(RIG)),--full) || [ $$? = 77 ]

install-run-tools:
	@test/install-packages nginx-light=nginx curl=curl iputils-ping=ping frr=/usr/lib/frr/bgpd bird2=bird nftables=nft unbound=unbound prometheus=prometheus

install-build-tools:
	@test/install-packages clang-$(CLANG_MAJOR)=clang-$(CLANG_MAJOR) llvm-$(CLANG_MAJOR)=llvm-strip-$(CLANG_MAJOR) \
		protobuf-compiler=protoc libbpf-dev=/usr/include/bpf/bpf_helpers.h linux-libc-dev=/usr/include/linux/bpf.h gcc=gcc

install-release-tools:
	@test/install-packages qemu-user-static=qemu-aarch64-static binutils=readelf

clean: ## remove bin/
	rm -rf bin

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20
