# The commands of this repository. `make test` and `make check` must pass before anything is merged.

BIN := target/release

.PHONY: run cluster cluster-test test autobahn check bench docs pictures simulate chaos rolls fuzz setup fmt

## run: the gateway with a live demo feed on http://127.0.0.1:8080
run:
	cargo run --release

## cluster: HAProxy, three nodes, Redis and Prometheus on this machine, with the files of deploy/; Ctrl-C ends it
cluster:
	@scripts/cluster

## cluster-test: that cluster while nodes are killed and drained and Redis goes away; part of `make test`
cluster-test: setup
	cargo test -p tickcast --test cluster -- deploy::

## test: install what the tests need, then run all of them
test: setup
	cargo test --workspace --all-features

## autobahn: the Autobahn suite for WebSocket servers against the node's sessions; part of `make test`
autobahn:
	scripts/autobahn
	cargo test -p tickcast --features testing --test frames -- --nocapture autobahn::

## check: formatting, lints, documentation, dependencies; `make check ADVISORIES=required` before a release
ADVISORIES :=
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny@0.20.2
	cargo deny check bans licenses sources
	scripts/advisories $(ADVISORIES)

## bench: measure the budgets beside the bare loop and write docs/performance.md
bench:
	cargo build --release --workspace
	$(BIN)/tickcast-load bench --server $(BIN)/tickcast --out docs/performance.md

## docs: write the generated pages anew
docs:
	TICKCAST_BLESS=1 cargo test -p tickcast --lib -q
	TICKCAST_BLESS=1 cargo test -p tickcast-protocol -q

## pictures: draw docs/images from a cluster under load in which a node is killed and another drained
pictures:
	scripts/pictures

## simulate: the Redis link and the hub in virtual time, many runs; for example `make simulate SEEDS=100000`
SEEDS := 20000
simulate:
	TICKCAST_SIMULATION_SEEDS=$(SEEDS) cargo test -p tickcast --test it simulation

## chaos: nodes, Redis and networks fail in turn under load, for as long as you like; for example `make chaos MINUTES=600`
MINUTES := 60
chaos:
	TICKCAST_CHAOS_MINUTES=$(MINUTES) cargo test -p tickcast --test storm chaos -- --nocapture

## rolls: all nodes are replaced again and again under thousands of clients; for example `make rolls ROLLS=100`
ROLLS := 20
rolls:
	TICKCAST_ROLLS=$(ROLLS) cargo test -p tickcast --test storm all_nodes_are_replaced -- --nocapture

## fuzz: what reads the bytes of strangers, under libFuzzer; for example `make fuzz SECONDS=3600` for an hour per target
SECONDS := 600
fuzz:
	scripts/fuzz $(SECONDS)

## setup: what the tests need beside the Rust toolchain, Node.js and Python
setup:
	scripts/setup

## fmt: format everything
fmt:
	cargo fmt --all
