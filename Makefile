# Plain `make` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The go command stamps the revision into the binary, and stops when git will not tell it (no checkout, or another
# user's): then build without.
BUILDVCS := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build the static binary bin/narvault
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(BUILDVCS) -ldflags='-X main.version=$(VERSION)' -o bin/narvault ./cmd/narvault

.PHONY: demo
demo: ## build, back up, mount and restore a small collection of packages (installs nix-bin and fuse3 on Debian)
	nix/demo/run

.PHONY: test
test: ## format, vet, staticcheck, all tests, most with the race detector (installs what is missing on Debian)
	.ci/test

.PHONY: acceptance
acceptance: ## the tests with a large corpus
	CGO_ENABLED=0 go test -count=1 -timeout=60m -run=Acceptance -tags=acceptance -v ./cmd/... ./narread

.PHONY: bench
bench: build ## the Go benchmarks, and whole commands beside those of Nix
	go test -run='^$$' -bench=. -benchmem ./...
	go run ./.ci/bench

.PHONY: soak
soak: build ## change, kill and verify a backup at random for three minutes (as root; SOAK='-seed N -duration 1h')
	go run ./.ci/soak $(SOAK)

.PHONY: install-deps
install-deps: ## install what the tests and the demo need (Debian, as root)
	.ci/install-deps nix fuse postgresql gcc tools

.PHONY: vendor-hash
vendor-hash: ## print the vendorHash of nix/package.nix and write it there; after a change of modules or imports
	nix/vendor-hash --write

.PHONY: fmt
fmt: ## format the Go files
	gofmt -w .

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
