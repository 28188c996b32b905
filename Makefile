# One command for each habit; each sets up what it needs.
.PHONY: setup demo test lint kafka container chaos fuzz bench format clean

setup:   ; scripts/setup dev
demo:    ; scripts/run
test:    ; scripts/test
lint:    ; scripts/lint
format:  ; scripts/setup dev && .venv/bin/ruff format . && .venv/bin/ruff check --fix .
kafka:   ; scripts/kafka
container: ; scripts/container
chaos:   ; BULKHEAD_KILLS=200 scripts/test -m chaos
fuzz:    ; BULKHEAD_FUZZ_CASES=$${BULKHEAD_FUZZ_CASES:-1000000} scripts/test -q tests/fuzz
bench:   ; scripts/setup dev && for one in supervision replay orders feeds why kafka; do .venv/bin/python -m benchmarks.$$one || exit 1; done
clean:   ; rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
