# Every target sets up what it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PROSE := build/prose
TRITON := build/triton
# A file's tests share a server, and long files come first: those of the units fill what is left at the end.
SIDE_BY_SIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit coverage serve lint type fmt proto dist docs docs-site bench bench-triton explain zoo honest load rotations losses shapes hostile fuzz alarms nights rules card train-demo gpu mutants triton lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installed once, and again only when what is to be installed changes.
$(INSTALLED): requirements.lock pyproject.toml protos/generate.py $(wildcard protos/vedette/v1/*.proto deploy/detectron2/*.*) | $(BIN)/python
	@echo "Installing; torch alone is several GB, this takes a few minutes."
	$(BIN)/python -m pip --disable-pip-version-check install --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python deploy/detectron2/build.py
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

demo: $(INSTALLED) ## start the server with the bundled model and send it pictures
	@$(BIN)/python deploy/demo/demo.py

serve: $(INSTALLED) ## serve the bundled model in the foreground
	@exec $(BIN)/vedette-server serve

test: $(INSTALLED) ## run the whole test suite, or a part: make test T=tests/unit/test_queue.py
	$(BIN)/python -m pytest $(or $(T),$(SIDE_BY_SIDE))

test-unit: $(INSTALLED) ## run the unit tests, which start no server
	$(BIN)/python -m pytest tests/unit --numprocesses 2 --dist worksteal

coverage: $(INSTALLED) ## show which lines the unit tests reach, or another part: make coverage T=tests/integration
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(or $(T),tests/unit); status=$$?; $(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$status

# textlint, installed once from its committed lock.
$(PROSE)/installed: deploy/prose/package.json deploy/prose/package-lock.json
	@mkdir -p $(PROSE)
	cp $^ $(PROSE)
	cd $(PROSE) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

lint: $(INSTALLED) $(PROSE)/installed ## ruff, the import linter, Buf's lint of the protos, the rules of prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python protos/lint.py
	$(BIN)/python deploy/prose/check.py
	$(PROSE)/node_modules/.bin/textlint --config deploy/prose/textlint.json \
	  --rules-base-directory $(CURDIR)/$(PROSE)/node_modules $$(git ls-files '*.md')

type: $(INSTALLED) ## mypy, strict, over the code, its tests and the scripts
	$(BIN)/mypy

# Its dependencies are not installed: the tests need its programs alone.
$(TRITON)/installed: tests/triton.lock | $(BIN)/python
	rm -rf $(TRITON)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target $(TRITON) --requirement $<
	@touch $@

triton: $(TRITON)/installed ## install NVIDIA's tritonserver for the tests that export a model into it

fmt: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED) ## generate Python from the protos
	$(BIN)/python protos/generate.py

dist: $(INSTALLED) ## build the wheel and the sdist; the version is the git tag's
	$(BIN)/python -m hatchling build

docs: $(INSTALLED) ## write the pages that are generated: reference, statistics, videos
	$(BIN)/python -m vedette_server.settings_page > deploy/docs/settings.md
	$(BIN)/python -m vedette_commands.page vedette_client.cli:main vedette_server.cli:main > deploy/docs/commands.md
	$(BIN)/python -m vedette_client.page > deploy/docs/python.md
	$(BIN)/python protos/page.py > deploy/docs/protos.md
	$(BIN)/python -m vedette_server.rpc.errors_page > deploy/docs/errors.md
	$(BIN)/python -m vedette_server.explain.page > deploy/docs/findings.md
	$(BIN)/python -m vedette_server.monitor.page > deploy/docs/metrics.md
	$(BIN)/python -m vedette_server.alerts.alerts_page > deploy/docs/alerts.md
	$(BIN)/python -m vedette_server.alerts.page deploy/docs/statistics.md
	$(BIN)/python -m tests.support.videos_page > deploy/docs/video.md

docs-site: $(INSTALLED) ## build the site of deploy/docs into build/site; every warning is an error
	$(BIN)/python -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --quiet deploy/docs build/site

bench: $(INSTALLED) ## measure, as ratios within one run
	$(BIN)/python -m tests.bench

bench-triton: $(INSTALLED) $(TRITON)/installed ## this server beside NVIDIA's Triton, with and without an export; seven minutes
	$(BIN)/python -m tests.bench.triton

explain: $(INSTALLED) ## print how often empty answers and Diagnose name the true cause; half an hour
	$(BIN)/python -m tests.bench.explain

zoo: $(INSTALLED) ## walk Detectron2's whole model zoo and write its page; an hour
	$(BIN)/python -m tests.bench.zoo

honest: $(INSTALLED) ## count how many honest pictures of other trades are accused; none may be; an hour
	$(BIN)/python -m tests.bench.honest

load: $(INSTALLED) ## kills, overload, streams and swaps at full length; a quarter of an hour
	$(BIN)/python -m tests.bench.load

rotations: $(INSTALLED) ## replace certificates 100 times under load, of which no call may fail; two minutes
	$(BIN)/python -m tests.bench.rotations

losses: $(INSTALLED) ## lose 1,000 workers under load, of whose images none may be lost; an hour
	$(BIN)/python -m tests.bench.losses --count 1000

shapes: $(INSTALLED) ## send 20,000 images of all shapes and kinds to a real server; a quarter of an hour
	$(BIN)/python -m tests.bench.shapes

hostile: $(INSTALLED) ## attack a server in every way that is known, by the hundred thousand; an hour and a half
	$(BIN)/python -m tests.bench.hostile

fuzz: $(INSTALLED) ## a fuzzer on each reader of bytes that others have made, 20 minutes each; six hours
	$(BIN)/python -m tests.fuzz

alarms: $(INSTALLED) ## silence a server in fifteen ways and see which alert fires; needs Prometheus and Alertmanager
	$(BIN)/python -m tests.sim.alarms

nights: $(INSTALLED) ## simulate nine days of honest traffic, in which no alert may fire; needs promtool
	$(BIN)/python -m tests.sim.nights

rules: $(INSTALLED) ## render the alert pack and the dashboards again
	$(BIN)/vedette-server rules --out deploy/prometheus
	$(BIN)/vedette-server dashboards --out deploy/grafana/dashboards

card: $(INSTALLED) ## measure the bundled model again and print its card's table
	$(BIN)/python -m vedette_server.demo.evaluate

train-demo: $(INSTALLED) ## train the bundled model again, in about an hour; resumes where it was stopped
	$(BIN)/python -m vedette_server.demo.train

gpu: $(INSTALLED) ## measure serving on a GPU beside Detectron2 on the same card; three minutes
	$(BIN)/python -m tests.bench.gpu

mutants: $(INSTALLED) ## change the code in small ways, which tests must notice; a night. A part: make mutants M=GLOB
	rm -rf build/mutants && mkdir -p build/mutants/src
	cp -r server/vedette_server client/vedette_client client/vedette_commands protos/vedette build/mutants/src
	cp -r tests deploy pyproject.toml build/mutants
	cd build/mutants && $(CURDIR)/$(BIN)/mutmut run $(M) && $(CURDIR)/$(BIN)/mutmut results && $(CURDIR)/$(BIN)/python -m tests.bench.mutants

lock: | $(BIN)/python ## write requirements.lock again from the declared ranges
	$(BIN)/python -m pip --quiet install uv
	$(BIN)/python -m uv pip compile pyproject.toml deploy/detectron2/pyproject.toml --extra server --extra supervision --extra video \
	  --extra dashboards --extra triton --group dev --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --constraint deploy/detectron2/torch.txt --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove what was built, but not the environment
	rm -rf build dist
