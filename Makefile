# Every command of this repository. `make` alone lists them. BROKER, VARIANT, MINUTES, SEED, FUZZTIME, RUNS, BENCH, REPS and SECONDS can be set on the command line.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BROKER   ?= memory
VARIANT  ?= default
FUZZTIME ?= 60s
BENCH    ?= .
RUNS     ?= 1
REPS     ?= 5
SECONDS  ?= 0.5

REPORTS := build/reports
STEPS   := build/steps
LINT    := go tool -modfile=tools.mod golangci-lint
TESTSUM := go run ./internal/cmd/testsum
MEMORY  := memory (in process)

export OMNIBUS_REPORTS := $(CURDIR)/$(REPORTS)

# The brokers besides memory, and the packages whose tests need one: they run in a step of their own.
KINDS             := nats kafka rabbitmq redis
packages-nats     := ./nats
packages-kafka    := ./kafka
packages-rabbitmq := ./rabbitmq
packages-redis    := ./redisstreams
ADAPTERS          := $(foreach k,$(KINDS),$(if $(packages-$k),$k))
UP                ?= $(KINDS)

# The package that starts brokers tests itself on real ones, and INTEROP needs Python. BROKER_PACKAGES are left out of `make check`.
CONTAINERS       := ./conformance/containers
QUICKSTART       := ./examples/quickstart/brokertest
COMMAND          := ./cmd/omnibus/brokertest
EXAMPLES         := ./examples/brokertest
CONFIG           := ./config/brokertest
INTEROP          := ./middleware/security/interop
BROKER_PACKAGES  := $(CONTAINERS) $(QUICKSTART) $(COMMAND) $(EXAMPLES) $(CONFIG) $(INTEROP) $(foreach k,$(KINDS),$(packages-$k))
QUICKSTART_STEPS := $(foreach k,$(ADAPTERS),quickstart-$k)
COMMAND_STEPS    := $(foreach k,$(ADAPTERS),command-$k)
EXAMPLES_STEPS   := $(foreach k,$(ADAPTERS),examples-$k)
CONFIG_STEPS     := $(foreach k,$(ADAPTERS),config-$k)
BENCHMARK_STEPS  := $(foreach k,$(ADAPTERS),benchmarks-$k)
BROKER_STEPS     := $(foreach k,$(ADAPTERS),broker-$k)

SETUP := internal/setup/setup.sh

# A test binary that runs longer than this prints its goroutines and fails. The suite and its strangers take 3 min with -race on a busy machine.
TIMEOUT := 8m
# The same for the command: with its 10,000 dead letters it takes 5 min on RabbitMQ on a machine that has much other work.
COMMAND_TIMEOUT := 15m
# The same for a broker's package: its suite waits out what it promises, a minute of grace and half a one among it, and RabbitMQ takes 10 s for each of
# its restarts: 19 min in all beside another suite on a machine that has other work.
BROKER_TIMEOUT := 30m
# The same for the package that starts brokers: each kind a dozen times, three of them also as clusters, and Kafka and RabbitMQ take seconds for a start.
CONTAINERS_TIMEOUT := 30m

# steps runs make targets one after another, those of its second argument two at a time: a broker's suite waits more than it works. Later ones run also when
# an earlier one failed. Then it prints what ran and `N passed, N failed, N skipped`, and fails if anything did or if no test ran.
define steps
rm -rf $(STEPS); failed=(); \
for step in $(1); do $(MAKE) $$step || failed+=("$$step"); done; \
$(if $(2),$(MAKE) -k -j 2 -Otarget $(2) || failed+=('one of $(2)');) \
$(TESTSUM) -total $(STEPS) "$${failed[@]}"
endef

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ everyday

.PHONY: check
check: ## fmt, vet, lint, unit tests and the suite on memory, all with -race; needs no broker (budget: 3 min warm)
	@$(call steps,fmt vet lint unit)

.PHONY: test
test: ## check, quickstart, the command, the frame of the benchmarks and what needs a broker; what CI runs; the last line is `N passed, N failed, N skipped`
	@$(SETUP) ready $(KINDS)
	@$(SETUP) clients $(KINDS) python
	@$(call steps,fmt vet lint unit interop wycheproof tinkkeys quickstart benchmarks $(BENCHMARK_STEPS),$(BROKER_STEPS) containers $(COMMAND_STEPS) $(CONFIG_STEPS) $(EXAMPLES_STEPS) $(QUICKSTART_STEPS))

.PHONY: setup
setup: ## fetch the modules, build the tools, and get the brokers that tests need (OMNIBUS_BROKERS=memory: none; UP=kafka/4.0: that one)
	@echo 'setup: downloads the modules of go.mod, tools.mod, benchmarks/go.mod (the peers), Tink for middleware/security/tinkkeys and the test vectors of middleware/security/wycheproof, then builds golangci-lint (1 to 2 min the first time).'
	@go mod download
	@go mod download -modfile=tools.mod
	@go -C benchmarks list -deps -test ./... >/dev/null
	@go -C middleware/security/wycheproof list -deps -test ./... >/dev/null
	@go -C middleware/security/tinkkeys list -deps -test ./... >/dev/null
	@$(LINT) version
	@$(SETUP) install $(UP) python

.PHONY: brokers-up
brokers-up: ## start brokers for working by hand and print their URLs: make brokers-up UP='nats nats/cluster'
	@go run ./internal/cmd/brokers up $(UP)

.PHONY: brokers-down
brokers-down: ## remove what brokers-up has started
	@go run ./internal/cmd/brokers down

.PHONY: fmt
fmt: ## fail if a Go file is not formatted (gofmt -w . mends it)
	@out="$$(gofmt -l .)"; if [ -n "$$out" ]; then echo "fmt: not formatted (gofmt -w . mends it):"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet
	@go vet ./...

.PHONY: lint
lint: ## golangci-lint, at the version pinned in tools.mod
	@$(LINT) run ./...

.PHONY: unit
unit: ## every test that needs no broker, with -race, the suite on memory among them
	@without=$$(go list $(BROKER_PACKAGES)); \
	$(TESTSUM) -name unit -against '$(MEMORY)' -record $(STEPS) -- \
		go test -race -shuffle=on -timeout $(TIMEOUT) -json $$(go list ./... | grep -vxF "$$without")

# How the tests of a kind are called; those that are not called after any take NATS for an example.
containers-tests-kafka    := Kafka
containers-tests-rabbitmq := RabbitMQ
containers-tests-redis    := Redis

.PHONY: containers
containers: ## what starts and breaks brokers, on real ones
	@there=(); named=(); without=(); \
	for kind in $(foreach k,$(KINDS),$k/$(containers-tests-$k)); do \
		if [ $$($(SETUP) state $${kind%/*}) != container ]; then without+=("$${kind#*/}"); continue; fi; \
		there+=("$${kind%/*}"); named+=("$${kind#*/}"); \
	done; \
	if [ $${#there[@]} = 0 ]; then $(TESTSUM) -name containers -not-run 'no broker is to be run in a container' -record $(STEPS); exit; fi; \
	pattern() { local IFS='|'; echo "^Test($$*)"; }; \
	case " $${there[*]} " in \
	*' nats '*) only=($${without:+-skip "$$(pattern "$${without[@]}")"});; \
	*) only=(-run "$$(pattern "$${named[@]}")");; \
	esac; \
	$(TESTSUM) -name containers -against "$${there[*]} in containers" -record $(STEPS) -- \
		go test -race -count=1 -timeout $(CONTAINERS_TIMEOUT) -json "$${only[@]}" $(CONTAINERS)

.PHONY: $(BROKER_STEPS)
$(BROKER_STEPS): broker-%:
	@case $$($(SETUP) state $*) in \
	left-out) $(TESTSUM) -name $@ -not-run 'OMNIBUS_BROKERS leaves $* out' -record $(STEPS);; \
	url) $(TESTSUM) -name $@ -against '$* by URL' -record $(STEPS) -- \
		go test -race -p 1 -count=1 -timeout $(BROKER_TIMEOUT) -json $(packages-$*);; \
	container) $(TESTSUM) -name $@ -against '$* in containers' -record $(STEPS) -- \
		go test -race -p 1 -count=1 -timeout $(BROKER_TIMEOUT) -json $(packages-$*);; \
	*) exit 2;; \
	esac

.PHONY: interop
interop: ## a verifier in Python judges signed and encrypted messages
	@if [ $$($(SETUP) state python) = left-out ]; then $(TESTSUM) -name $@ -not-run 'OMNIBUS_BROKERS leaves python out' -record $(STEPS); \
	else $(TESTSUM) -name $@ -against 'Python' -record $(STEPS) -- \
		go test -race -count=1 -timeout $(TIMEOUT) -json $(INTEROP); fi

# A module of its own, as benchmarks/ is.
.PHONY: wycheproof
wycheproof: ## vet, lint and test the module that has the test vectors of others
	@cd middleware/security/wycheproof && go vet ./...
	@cd middleware/security/wycheproof && go tool -modfile=../../../tools.mod golangci-lint run ./...
	@$(TESTSUM) -name wycheproof -against 'Project Wycheproof' -record $(STEPS) -- \
		go -C middleware/security/wycheproof test -race -timeout $(TIMEOUT) -json ./...

.PHONY: tinkkeys
tinkkeys: ## vet, lint and test the module that has Tink keysets
	@cd middleware/security/tinkkeys && go vet ./...
	@cd middleware/security/tinkkeys && go tool -modfile=../../../tools.mod golangci-lint run ./...
	@$(TESTSUM) -name tinkkeys -against 'Tink, $(MEMORY)' -record $(STEPS) -- \
		go -C middleware/security/tinkkeys test -race -timeout $(TIMEOUT) -json ./...

.PHONY: quickstart
quickstart: ## run the quickstart as a newcomer would
	@$(TESTSUM) -plain -name quickstart -against '$(MEMORY)' -record $(STEPS) -- \
		timeout -s QUIT 120 go run ./examples/quickstart

# The broker is killed meanwhile, so one that runs already is not used.
.PHONY: $(QUICKSTART_STEPS)
$(QUICKSTART_STEPS): quickstart-%:
	@if [ $$($(SETUP) state $*) = container ]; then \
		$(TESTSUM) -name $@ -against '$* in containers' -record $(STEPS) -- \
			go test -race -count=1 -timeout $(TIMEOUT) -json -run '^TestBrokers$$/^$*$$' $(QUICKSTART); \
	else $(TESTSUM) -name $@ -not-run 'no $* is to be run in a container' -record $(STEPS); fi

# The command, built and used outside the repository.
.PHONY: $(COMMAND_STEPS)
$(COMMAND_STEPS): command-%:
	@if [ $$($(SETUP) state $*) = container ]; then \
		$(TESTSUM) -name $@ -against '$* in containers' -record $(STEPS) -- \
			go test -race -count=1 -timeout $(COMMAND_TIMEOUT) -json -run '^Test(Brokers|Terminal|Many)$$/^$*$$' $(COMMAND); \
	else $(TESTSUM) -name $@ -not-run 'no $* is to be run in a container' -record $(STEPS); fi

# Each example on each broker, with what it prints in the process.
.PHONY: $(EXAMPLES_STEPS)
$(EXAMPLES_STEPS): examples-%:
	@case $$($(SETUP) state $*) in \
	container) $(TESTSUM) -name $@ -against '$* in containers' -record $(STEPS) -- \
		go test -race -count=1 -timeout $(TIMEOUT) -json -run '^TestBrokers$$/^$*$$' $(EXAMPLES);; \
	*) $(TESTSUM) -name $@ -not-run 'no $* is to be run in a container' -record $(STEPS);; \
	esac

# One configuration file on each broker, with what it gives in the process.
.PHONY: $(CONFIG_STEPS)
$(CONFIG_STEPS): config-%:
	@case $$($(SETUP) state $*) in \
	left-out) $(TESTSUM) -name $@ -not-run 'OMNIBUS_BROKERS leaves $* out' -record $(STEPS);; \
	url) $(TESTSUM) -name $@ -against '$* by URL' -record $(STEPS) -- \
		go test -race -count=1 -timeout $(TIMEOUT) -json -run '^TestBrokers$$/^$*$$' $(CONFIG);; \
	container) $(TESTSUM) -name $@ -against '$* in containers' -record $(STEPS) -- \
		go test -race -count=1 -timeout $(TIMEOUT) -json -run '^TestBrokers$$/^$*$$' $(CONFIG);; \
	*) exit 2;; \
	esac

# benchmarks/ is a module of its own: ./... does not reach it.
.PHONY: benchmarks
benchmarks: ## vet, lint and test benchmarks/, the module that has the peers; each row runs once, briefly
	@cd benchmarks && go vet ./...
	@cd benchmarks && go tool -modfile=../tools.mod golangci-lint run ./...
	@$(TESTSUM) -name benchmarks -against '$(MEMORY)' -record $(STEPS) -- \
		go -C benchmarks test -race -timeout $(TIMEOUT) -skip '$(SERVERS)' -json ./...

# Tests of benchmarks/ that need a server.
SERVERS := ^Test(NATS|Kafka|RabbitMQ|Redis)

.PHONY: $(BENCHMARK_STEPS)
$(BENCHMARK_STEPS): benchmarks-%:
	@if [ $$($(SETUP) state $*) = left-out ]; then $(TESTSUM) -name $@ -not-run 'OMNIBUS_BROKERS leaves $* out' -record $(STEPS); \
	else $(TESTSUM) -name $@ -against $* -record $(STEPS) -- \
		go run ./internal/cmd/brokers with $* go -C benchmarks test -race -count=1 -timeout $(TIMEOUT) -run '(?i)^Test$*' -json ./...; fi

##@ the suite

# The package whose TestConformance runs the suite on a broker. The reference adapter's is in the suite itself.
suite-memory   := ./conformance
suite-nats     := ./nats
suite-kafka    := ./kafka
suite-rabbitmq := ./rabbitmq
suite-redis    := ./redisstreams

# get_broker is for the shell: it gets BROKER in the variant $(1), or refuses what is not to be had, and says in $against which one it is.
define get_broker
[ -n '$(suite-$(BROKER))' ] || { echo '$@: there is no adapter "$(BROKER)" yet'; exit 2; }; \
against='$(MEMORY)'; if [ '$(BROKER)' = memory ]; then \
	[ '$(1)' = default ] || { echo '$@: memory has no variant "$(1)"'; exit 2; }; \
else \
	case $$($(SETUP) state '$(BROKER)/$(1)') in \
	left-out) echo '$@: OMNIBUS_BROKERS leaves $(BROKER) out'; exit 2;; \
	url) against='$(BROKER) by URL';; \
	container) $(SETUP) ready '$(BROKER)/$(1)'; against='$(BROKER) in containers';; \
	*) exit 2;; \
	esac; \
fi
endef

.PHONY: conformance
conformance: ## the suite alone: make conformance BROKER=memory [VARIANT=tls RUNS=100 SEED=n]; writes build/reports/conformance-*.json
	@$(call get_broker,$(VARIANT)); OMNIBUS_VARIANT='$(VARIANT)' $(TESTSUM) -name conformance $(if $(filter 1,$(RUNS)),-show TestConformance) \
		-against "$$against, variant $(VARIANT)" -- \
		go test -race -count=$(RUNS) -timeout 30m -json -run '^TestConformance$$' $(suite-$(BROKER))

matrix = $(filter-out default,$(shell go run ./internal/cmd/brokers variants $(BROKER)))

.PHONY: matrix
matrix: ## the suite on every other version and topology, one after another: make matrix BROKER=nats (budget: 30 min)
	@[ '$(BROKER)' != memory ] || { echo 'matrix: memory has no variants'; exit 2; }
	@[ -n '$(suite-$(BROKER))' ] || { echo 'matrix: there is no adapter "$(BROKER)" yet'; exit 2; }
	@[ $$($(SETUP) state '$(BROKER)') != left-out ] || { echo 'matrix: OMNIBUS_BROKERS leaves $(BROKER) out'; exit 2; }
	@[ '$(VARIANT)' = default ] || { echo 'matrix: it takes every variant but default; `make conformance` takes one'; exit 2; }
	@$(SETUP) ready $(addprefix $(BROKER)/,$(matrix))
	@$(call steps,$(addprefix matrix-,$(matrix)))

matrix-%:
	@$(call get_broker,$*); OMNIBUS_VARIANT=$* $(TESTSUM) -name $@ -against "$$against, variant $*" -record $(STEPS) -- \
		go test -race -count=1 -timeout 30m -json -run '^TestConformance$$' $(suite-$(BROKER))

# The packages whose TestSoak runs fault schedules.
soak-memory   := ./conformance
soak-nats     := ./nats
soak-kafka    := ./kafka
soak-rabbitmq := ./rabbitmq
soak-redis    := ./redisstreams
MINUTES       ?= 20

# What else takes minutes there; in `make test` it is short.
soak-too-kafka := |MembersComeAndGo|MemoryIsBounded

.PHONY: soak
soak: ## fault schedules, repeatable by seed: make soak BROKER=nats VARIANT=cluster MINUTES=20 SEED=n; writes build/reports/soak-*.json
	@[ -n '$(soak-$(BROKER))' ] || { echo 'soak: there is no adapter "$(BROKER)" yet; memory, nats, kafka, rabbitmq and redis exist'; exit 2; }
	@$(call get_broker,$(VARIANT)); MINUTES='$(MINUTES)' OMNIBUS_VARIANT='$(VARIANT)' $(if $(SEED),SEED='$(SEED)') \
		$(TESTSUM) -name soak -show TestSoak -against "$$against, variant $(VARIANT)" -- \
		go test -race -count=1 -timeout $$(( $$(printf '%.0f' '$(MINUTES)') + 10 ))m -json -run '^Test(Soak$(soak-too-$(BROKER)))$$' $(soak-$(BROKER))

.PHONY: mutants
mutants: ## break the memory broker one fault at a time; each must be caught by its property (budget: 5 min)
	@$(TESTSUM) -name mutants -show TestMutants -against '$(MEMORY)' -- \
		go test -count=1 -timeout 10m -json -run '^TestMutants$$' ./conformance

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (60s), one after another
	@found=0; for pkg in $$(go list ./...); do \
		list=$$(go test -list '^Fuzz' $$pkg); \
		for f in $$(grep '^Fuzz' <<<"$$list" || true); do \
			found=1; echo "== $$pkg $$f ($(FUZZTIME))"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done; [ $$found = 1 ] || { echo 'fuzz: no fuzz targets found'; exit 1; }

##@ figures

.PHONY: bench
bench: ## Go benchmarks, then omnibus against raw and the peers on BROKER, without -race; BENCH=regexp picks some; QUICK=1
	@[ '$(VARIANT)' = default ] || { echo 'bench: it measures the variant default, not "$(VARIANT)"'; exit 2; }
	@mkdir -p $(REPORTS)
	@go test -run '^$$' -bench '$(BENCH)' -benchmem $(if $(QUICK),-benchtime 50ms,-count=5) ./... | tee $(REPORTS)/bench-go.txt
	@$(if $(filter $(KINDS),$(BROKER)),go run ./internal/cmd/brokers with $(BROKER)) go -C benchmarks run . -broker '$(BROKER)' $(if $(QUICK),-reps 1 -each 50ms,-reps $(REPS) -each $(SECONDS)s) \
		$(if $(filter-out .,$(BENCH)),-only '$(BENCH)')

.PHONY: reports
reports: ## print the reports in build/reports as one table, and write build/reports/index.html
	@$(TESTSUM) -reports $(REPORTS)

.PHONY: measured
measured: ## put the reports in build/reports into docs/measured.json, which is committed, and its tables into README.md; those of other brokers stay
	@$(TESTSUM) -measured docs/measured.json -reports $(REPORTS) -readme README.md

.PHONY: clean
clean: ## remove build/
	@rm -rf build
