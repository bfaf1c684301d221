# httpctl: `make demo` shows it, `make test` proves it.
SHELL := /bin/bash
GO    ?= go
TOOL  := $(GO) tool -modfile=tools/go.mod
export CGO_ENABLED ?= 0

FUZZTIME ?= 30s
BENCH_DIR ?= /tmp/httpctl-bench
PEER_RUNS ?= 5
TORTURE ?= 10

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

.PHONY: build
build: ## build the three static programs into bin/
	$(GO) build -trimpath -o bin/ ./cmd/httpctl ./cmd/httpctl-agent ./cmd/httpctl-aggregator

.PHONY: demo
demo: build ## watch real traffic be learned, alerted on and dismissed, in 90 seconds
	$(GO) build -trimpath -o bin/ ./demo
	bin/demo

.PHONY: test
test: test-tools ## install what the tests need (as root on Debian), then run all of them
	@GO=$(GO) scripts/test

.PHONY: test-tools
test-tools:
	@scripts/test-tools

.PHONY: check
check: ## format, vet, lint, generated code up to date
	scripts/check

.PHONY: race
race: ## the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short ./...

.PHONY: cross
cross: ## build and vet for arm64, and httpctl for darwin, too
	scripts/cross

.PHONY: deb
deb: ## Debian packages of the three programs, in dist/
	scripts/deb

.PHONY: deb-test
deb-test: ## install, upgrade and purge the packages in a clean Debian (root, debootstrap; minutes)
	@scripts/test-tools --only debootstrap lintian systemd-nspawn
	HTTPCTL_DEB=full $(GO) test ./test -run TestDebs -v -count 1 -timeout 3h

.PHONY: images
images: ## OCI images of the three programs, in dist/ (buildah)
	@scripts/test-tools --only buildah
	scripts/images

.PHONY: images-test
images-test: ## what is in the images, and that building them again gives the same bytes (a minute)
	@scripts/test-tools --only buildah
	HTTPCTL_IMAGES=full $(GO) test ./test -run TestImages -v -count 1 -timeout 3h

.PHONY: chart
chart: ## check the Helm chart with helm and kubectl-validate, and package it into dist/ (minutes the first time)
	scripts/chart

.PHONY: release
release: ## what is published, in dist/: programs, Debian packages, bills of materials, checksums
	scripts/release

.PHONY: release-test
release-test: ## two releases of two directories and build caches are equal (minutes)
	HTTPCTL_RELEASE=full $(GO) test ./test -run TestBuildsAreEqual -v -count 1 -timeout 3h

.PHONY: man
man: ## the manual pages of programs, commands and configuration, in man/
	rm -rf man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)} $(GO) run ./docs/manual -o man

.PHONY: screens
screens: ## the README's pictures and film, from the demo in a terminal (tmux; two minutes)
	scripts/screens

.PHONY: web
web: ## bundle the web page into aggregator/web/assets (npm)
	cd web && npm ci --no-audit --no-fund && npm run build

.PHONY: proto
proto: ## regenerate the gRPC code
	$(TOOL) buf generate

.PHONY: docs
docs: ## write the generated tables of docs/metrics.md and docs/configuration.md anew
	$(GO) test ./test -run 'TestDocs(Metrics|Reload)' -count 1 -update

.PHONY: proto-baseline
proto-baseline: ## at a release: what later contracts have to be compatible with
	$(TOOL) buf build --exclude-source-info -o proto/baseline.binpb

.PHONY: fuzz
fuzz: ## fuzz every parser in turn, FUZZTIME each (default 30s)
	FUZZTIME=$(FUZZTIME) scripts/fuzz

.PHONY: bench
bench: build ## benchmarks of the hot rooms; reading a capture of nginx and wrk (root), against nginx's log, tshark and others
	@scripts/test-tools httpry ndpiReader
	BENCH_DIR=$(BENCH_DIR) scripts/bench

.PHONY: bench-peers
bench-peers: build ## the same comparison with medians of PEER_RUNS runs of each program (default 5)
	@scripts/test-tools httpry ndpiReader
	$(GO) build -o bin/ ./bench
	bin/bench -dir $(BENCH_DIR) -httpctl bin/httpctl -runs $(PEER_RUNS)

.PHONY: bench-live
bench-live: build ## what an agent costs beside nginx: at 60% of saturation, at saturation, with downloads (root; minutes)
	@scripts/test-tools h2load
	$(GO) build -o bin/ ./bench
	bin/bench -live -dir $(BENCH_DIR) -httpctl bin/httpctl

.PHONY: bench-flows
bench-flows: ## the cost of a packet with 100 to 500,000 connections, and docs/flows.svg of it
	scripts/bench-flows

.PHONY: bench-fleet
bench-fleet: ## what an aggregator costs with 10 to 10,000 simulated agents, and docs/scaling.svg of it (minutes)
	scripts/bench-fleet

.PHONY: bench-view
bench-view: ## what the live view costs: from a key to its picture through a terminal, and when nobody types (tmux; two minutes)
	scripts/bench-view

.PHONY: attack
attack: ## the memory test in full: a million half-open connections and endless heads, ten million names (minutes)
	HTTPCTL_ATTACK=full $(GO) test ./test -run TestMemoryUnderAttack -v -count 1 -timeout 3h

.PHONY: torture
torture: ## kill agents and aggregator, spoil their connections and disks for TORTURE minutes (default 10), then hold the store against what passed (root)
	@scripts/test-tools
	HTTPCTL_TORTURE=$(TORTURE) $(GO) test ./test/torture -run TestTorture -v -count 1 -timeout 0
	HTTPCTL_TORTURE=$(TORTURE) $(GO) test ./test/powercut -run TestPowerCuts -v -count 1 -timeout 0
	HTTPCTL_TORTURE=$(TORTURE) $(GO) test ./agent/spool ./aggregator/store/bolt -run TestFlips -v -count 1 -timeout 0

PLACE = $(DESTDIR)$(or $(PREFIX),/usr/local)
PROGRAMS = httpctl httpctl-agent httpctl-aggregator

# Go is often not in root's PATH: then what make build has made is installed.
.PHONY: install
install: $(if $(shell command -v $(GO)),build man) ## install programs, manual pages and completion into $(PREFIX) (default /usr/local)
	@[[ -x bin/httpctl && -e man/httpctl.1 ]] || { echo "install: there is no $(GO) to build with here: run make build man before" >&2; exit 1; }
	install -D -m 0755 -t $(PLACE)/bin $(addprefix bin/,$(PROGRAMS))
	for section in 1 5 8; do install -D -m 0644 -t $(PLACE)/share/man/man$$section man/*.$$section || exit; done
	install -d $(addprefix $(PLACE)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	bin/httpctl completion bash >$(PLACE)/share/bash-completion/completions/httpctl
	bin/httpctl completion zsh >$(PLACE)/share/zsh/site-functions/_httpctl
	bin/httpctl completion fish >$(PLACE)/share/fish/vendor_completions.d/httpctl.fish

.PHONY: uninstall
uninstall: ## remove what make install has put there; settings and data stay
	rm -f $(addprefix $(PLACE)/bin/,$(PROGRAMS)) $(PLACE)/share/man/man[158]/httpctl*.[158]
	rm -f $(PLACE)/share/bash-completion/completions/httpctl $(PLACE)/share/zsh/site-functions/_httpctl $(PLACE)/share/fish/vendor_completions.d/httpctl.fish

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf bin dist man $(BENCH_DIR)
