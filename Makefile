# Fashion MNIST as a Service. `make help` lists what there is.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
# Every step of a training needs the memory that the step before it freed: glibc is told to keep it, or it would give
# it back and fetch it anew, page by page, which costs a quarter of the time. `make train MALLOC=` goes without.
MALLOC ?= MALLOC_TOP_PAD_=268435456 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296

.DEFAULT_GOAL := help
.PHONY: help setup train sweep up serve build start stop status logs reset platform-train backup restore upgrade wheels doctor gc \
        test test-faults test-platform test-cluster fuzz check bench-train bench-gpu bench-accuracy bench-resnet bench-around \
        bench-profile bench-tracking bench-cluster bench-sweep bench-load bench-limits bench-limits-platform bench-platform \
        bench-serve bench-serve-cluster keras-fixture constraints

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with all that the commands below need (they run it first, once)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1 || echo missing); Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "make: setting up .venv, once; this takes a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(READY) ## train the CNN on Fashion-MNIST, e.g. make train ARGS="--epochs 3"
	@$(MALLOC) $(BIN)/fmnist train $(ARGS)

sweep: $(READY) ## search for a better recipe on all processors, e.g. make sweep ARGS="--trials 8 --epochs 4"
	@$(MALLOC) $(BIN)/fmnist sweep $(ARGS)

up: $(READY) ## run MLflow, TensorBoard, JupyterLab and the service until Ctrl-C
	@$(MALLOC) $(BIN)/fmnist up

build: ## build the platform's images (Docker)
	@$(PYTHON) platform/verbs.py build $(ARGS)

start: ## start the platform: MLflow, TensorBoard, JupyterLab, the service, Postgres; wait until all is healthy
	@$(PYTHON) platform/verbs.py start $(ARGS)

stop: ## stop the platform; everything is kept
	@$(PYTHON) platform/verbs.py stop $(ARGS)

status: ## what of the platform runs, and where
	@$(PYTHON) platform/verbs.py status

logs: ## what the platform's services say, until Ctrl-C; ARGS=mlflow: the last hundred lines of one
	@$(PYTHON) platform/verbs.py logs $(ARGS)

reset: ## delete the platform's data, after asking
	@$(PYTHON) platform/verbs.py reset $(ARGS)

platform-train: ## train in the platform's notebook container, e.g. make platform-train ARGS="--epochs 3"; WORKERS=2 on the cluster
	@$(PYTHON) platform/verbs.py train $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

backup: ## one verified set of all that the platform has recorded, into var/backups; a training may go on
	@$(PYTHON) platform/verbs.py backup $(ARGS)

restore: ## put a set in the place of what the platform has recorded, which is kept: make restore FROM=var/backups/…
	@$(PYTHON) platform/verbs.py restore $(if $(FROM),--from '$(FROM)') $(ARGS)

upgrade: ## after git pull: backup, new images, MLflow's database moved on; back to what was if anything fails
	@$(PYTHON) platform/verbs.py upgrade $(ARGS)

doctor: $(READY) ## look at everything that this checkout depends on, and say what to do about what is wrong
	@$(BIN)/fmnist doctor $(ARGS)

gc: $(READY) ## say what could be freed: deleted runs, logs without a run, old checkpoints; ARGS=--yes frees it
	@$(BIN)/fmnist gc $(ARGS)

wheels: ## fetch all Python packages of the images, so that make build needs no registry for them
	@$(PYTHON) platform/verbs.py wheels $(ARGS)

test: $(READY) ## run the tests (no network, no Docker)
	@OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal \
	  --ignore=tests/faults --ignore=tests/platform $(ARGS)

test-faults: $(READY) ## break things on purpose and count what is lost; FULL=1 for all tries, going on where it was stopped
	@FULL=$(FULL) $(BIN)/pytest --numprocesses=2 --dist=worksteal --no-loadscope-reorder tests/faults $(if $(FULL),tests/platform/test_postgres.py) $(ARGS)

test-platform: $(READY) ## real servers and containers, a live notebook, Ray on two nodes, 5,000 strange requests
	@FUZZ=5000 $(MALLOC) $(BIN)/pytest --numprocesses=2 --no-loadscope-reorder tests/platform tests/serve/test_fuzz.py \
	  --ignore-glob='*/test_cluster_*' $(ARGS)

test-cluster: $(READY) ## more of Ray: workers killed, sweeps resumed, replicas under load, who may knock where
	@$(BIN)/pytest tests/platform/test_cluster_*.py $(ARGS)

fuzz: $(READY) ## 100,000 strange requests to the service
	@FUZZ=100000 $(BIN)/pytest tests/serve/test_fuzz.py $(ARGS)

serve: $(READY) ## the service alone, until Ctrl-C, e.g. make serve ARGS="--model latest"
	@$(BIN)/fmnist serve $(ARGS)

check: $(READY) ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

PEERS := bench/peers/.venv/.ready

$(PEERS): bench/peers/requirements-keras.txt
	$(PYTHON) -m venv bench/peers/.venv
	bench/peers/.venv/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers/requirements-keras.txt
	@touch $@

bench-train: $(READY) $(PEERS) ## training speed against Keras + TensorFlow, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/train.py $(ARGS)

bench-gpu: $(READY) ## training on a GPU, beside PyTorch and Keras there, into bench/RESULTS.md
	@$(BIN)/python bench/gpu.py $(ARGS)

bench-accuracy: $(READY) $(PEERS) ## time to accuracy beside the original's whole training, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/accuracy.py $(ARGS)

bench-resnet: $(READY) ## the recipe resnet: its accuracy and time, and what its mean over mirror images costs
	@$(MALLOC) $(BIN)/python bench/residual.py $(ARGS)

bench-around: $(READY) ## what surrounds the training steps: start, data, evaluation, checkpoints, tracking, memory
	@$(MALLOC) $(BIN)/python bench/around.py

bench-profile: $(READY) ## where a training step's time goes, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/operators.py $(ARGS)

bench-tracking: $(READY) ## what tracking costs, on whole trainings, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/tracking.py $(ARGS)

bench-cluster: $(READY) ## two workers on Ray against one process, on this machine, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/cluster.py $(ARGS)

bench-sweep: $(READY) ## twenty trials on this machine: what the best is worth, and the time it takes, into bench/RESULTS.md
	@$(MALLOC) $(BIN)/python bench/sweep.py $(ARGS)

bench-load: $(READY) ## how many runs and points one MLflow takes, into bench/RESULTS.md; ARGS="--platform" on Postgres
	@$(BIN)/python bench/load.py $(ARGS)

bench-limits: $(READY) ## ten thousand runs: MLflow, commands, gc, TensorBoard, into bench/RESULTS.md
	@$(BIN)/python bench/limits.py $(ARGS)

bench-limits-platform: $(READY) ## ten thousand runs in the platform's Postgres, into bench/RESULTS.md
	@$(BIN)/python bench/limits_platform.py $(ARGS)

bench-platform: $(READY) ## how big and how quick the platform is, into bench/RESULTS.md
	@$(BIN)/python bench/containers.py $(ARGS)

SERVING_PEERS := bench/peers/serve/.venv/.ready

$(SERVING_PEERS): bench/peers/requirements-serve.txt
	$(PYTHON) -m venv bench/peers/serve/.venv
	bench/peers/serve/.venv/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers/requirements-serve.txt
	@touch $@

bench-serve: $(READY) $(SERVING_PEERS) ## the service against FastAPI, MLflow and others, into bench/RESULTS.md (needs wrk)
	@$(BIN)/python bench/serve.py $(ARGS)

bench-serve-cluster: $(READY) ## the service in replicas of Ray Serve beside one process, into bench/RESULTS.md (needs wrk)
	@$(BIN)/python bench/serve_cluster.py $(ARGS)

keras-fixture: $(PEERS) ## make tests/data/keras.npz anew: what Keras itself computes
	@TF_CPP_MIN_LOG_LEVEL=3 bench/peers/.venv/bin/python bench/peers/keras_fixture.py

constraints: ## resolve constraints.txt anew, for every platform and Python at once (needs uv)
	@uv pip compile pyproject.toml platform/*/requirements.txt --quiet --universal --all-extras --python-version 3.11 --no-annotate --no-header \
	  --output-file constraints.txt
