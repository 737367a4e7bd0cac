# sculpt: `make demo` shows it, `make test` proves it, `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.PHONY: help setup build test soak lint freeze demo release clean

CARGO ?= cargo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that are missing (Debian, Ubuntu)
	@scripts/setup

build: setup ## build the three programs for development
	$(CARGO) build --workspace --bins --locked

test: build ## run every test
	$(CARGO) test --workspace --locked --no-fail-fast

soak: build ## harm a stack at random, then judge it: DURATION=10m SEED=7
	DURATION=$(DURATION) SEED=$(SEED) $(CARGO) run --quiet -p sculpt-tests --example soak --locked

lint: setup ## check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

freeze: ## write proto/golden anew: what peers may rely on from now on
	SCULPT_FREEZE=1 $(CARGO) test --quiet -p sculpt-proto --test wire --locked nothing_frozen_is_gone

demo: build ## run the main job for real, in a directory of its own, and clean up
	@scripts/demo target/debug

release: setup ## build the three programs for use, into target/release
	$(CARGO) build --workspace --bins --locked --release

clean: ## remove what was built
	$(CARGO) clean
