#!/usr/bin/env bash
# Sets up .venv and runs every check: format, lint, types, tests. `--all` runs the slow tests as well; other arguments go
# to pytest: bash scripts/test.sh -k golden
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^# /s/^# //p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
# One thread for each worker: the workers are as many as there are cores.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto "$@"
