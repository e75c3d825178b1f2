# Two commands: `make run` shows the main job working, `make test` tests everything. Both do all
# set-up first. Long steps are cached outside the tree ($STILLMETAL_CACHE, ~/.cache/stillmetal).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export STILLMETAL_CACHE ?= $(HOME)/.cache/stillmetal
# rustup may have been installed a moment ago.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR ?= $(STILLMETAL_CACHE)/target
BUILD := build
TARGET := x86_64-unknown-linux-gnu
# Not passed on: programs that find CARGO in their environment run it from elsewhere.
unexport CARGO
CARGO := scripts/cargo
# The image's binaries are static. The flag goes with --target, or proc-macros would get it too.
STATIC := RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$(CURDIR)=/stillmetal --remap-path-prefix=$(HOME)/.cargo=/cargo" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/static
# The gate is static without that: it has no C library at all, see crates/gate.
GATE := RUSTFLAGS="--remap-path-prefix=$(CURDIR)=/stillmetal --remap-path-prefix=$(HOME)/.cargo=/cargo" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/gate
TOOL = $(CARGO_TARGET_DIR)/debug/stillmetal-image

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what the build needs (Debian packages, Rust toolchain)
	@scripts/setup

.PHONY: run
run: lab ## set up, build, bring up a controller and a node in QEMU, run the demo benchmark there
	@$(CARGO) run --quiet -p stillmetal-tests --bin demo

.PHONY: node
node: image ## boot a node and keep it running; prints how to point a docker context at it
	@$(CARGO) run --quiet -p stillmetal-tests --bin node

.PHONY: kernel
kernel: setup ## build the kernel (cached by its inputs)
	@kernel-config/build.sh --out $(BUILD)

.PHONY: agent
agent: setup ## build the static binaries: agent, first stage of boot, gate
	@$(STATIC) $(CARGO) build --quiet --locked --profile dist --target $(TARGET) -p stillmetal-agent -p stillmetal-init --bin stillmetal-agent --bin stage-one
	@$(GATE) $(CARGO) build --quiet --locked --profile dist --target $(TARGET) -p gate --features entrypoint
	@mkdir -p $(BUILD)
	@cp $(CARGO_TARGET_DIR)/static/$(TARGET)/dist/{stillmetal-agent,stage-one} $(BUILD)
	@cp $(CARGO_TARGET_DIR)/gate/$(TARGET)/dist/stillmetal-gate $(BUILD)

.PHONY: deb
deb: agent ## the agent as a Debian package for ordinary hosts, into build/
	@agent/deb/build.sh --agent $(BUILD)/stillmetal-agent --gate $(BUILD)/stillmetal-gate --out $(BUILD)

.PHONY: tool
tool: setup
	@$(CARGO) build --quiet --locked -p stillmetal-image

.PHONY: image
image: kernel agent tool ## build kernel and initramfs into build/
	@$(TOOL) build --kernel $(BUILD)/stillmetal-kernel --modules $(BUILD)/stillmetal-modules.tar --agent $(BUILD)/stillmetal-agent --init $(BUILD)/stage-one --gate $(BUILD)/stillmetal-gate --out $(BUILD)
	@$(TOOL) docker-cli --out $(BUILD)/docker

.PHONY: lab
lab: image ## build the controller and `still` into build/
	@$(CARGO) build --quiet --locked -p stillmetal-controller -p still
	@cp $(CARGO_TARGET_DIR)/debug/{stillmetal-controller,still} $(BUILD)

.PHONY: config
config: image ## certificates and config.img for a real node: DIR=, NAMES=address,name [SSH_KEY=FILE]
	@[[ -n "$(DIR)" && -n "$(NAMES)" ]] || { echo "make config DIR=directory NAMES=10.0.0.7,bench7.lab [SSH_KEY=key.pub]" >&2; exit 2; }
	@$(BUILD)/stillmetal-agent credentials --out "$(DIR)" --name "$(NAMES)"
	@$(TOOL) config --ca "$(DIR)/ca.pem" --cert "$(DIR)/node.pem" --key "$(DIR)/node.key" --out "$(DIR)/config.img" $(if $(SSH_KEY),--authorized-keys "$(SSH_KEY)")

.PHONY: relock
relock: tool ## move the package lock to the mirror's current versions, then run the tests
	@$(TOOL) relock
	@$(MAKE) test

.PHONY: check
check: setup ## formats, lints, licences
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --locked --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --profile dist -p gate --features entrypoint --bin stillmetal-gate -- -D warnings
	@scripts/deny

.PHONY: test test-fast test-api test-root test-vm
test: check test-fast test-api test-s3 test-root test-vm ## everything: lints, unit tests, API, S3, root lane, VM lane

test-fast: setup ## no root, no network, no engine
	@$(CARGO) test --locked --workspace

test-api: setup ## schemathesis (from PyPI) against a real controller
	@scripts/test-api

test-s3: setup ## the vault in a bucket of a real S3 server (moto, from PyPI)
	@scripts/test-s3

test-root: image ## namespaces, a real engine under the proxy, a real registry, reproducibility of the image
	@scripts/test-root
	@scripts/test-registry
	@scripts/test-reproducible

test-vm: image deb ## the image in QEMU, and the package on a stock Debian
	@scripts/test-vm

COMMA := ,
.PHONY: bench
bench: $(if $(filter-out controller%,$(subst $(COMMA), ,$(or $(ONLY),all))),image,setup) ## compare side by side with what else there is; ONLY=id-prefix,… chooses figures
	@$(CARGO) build --quiet --locked --release -p stillmetal-controller -p stillmetal-tests
	@$(CARGO_TARGET_DIR)/release/bench $(if $(ONLY),--only $(ONLY))

.PHONY: fuzz
fuzz: setup ## fuzz the parsers, SECONDS_EACH=60 a target
	@scripts/fuzz $(or $(SECONDS_EACH),60)

.PHONY: histories
histories: setup ## random histories of the scheduler, HISTORIES=1000000 of each kind
	@PROPTEST_CASES=$(or $(HISTORIES),1000000) $(CARGO) test --quiet --locked --release -p sched --test it -- histories

.PHONY: clean
clean: ## remove build/ (the cache outside the tree stays)
	@rm -rf $(BUILD)
