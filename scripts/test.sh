#!/usr/bin/env bash
# Set up .venv and run every check: format, lint, vocabulary, types, tests. `--all` includes the slow tests; other arguments
# are passed to pytest: bash scripts/test.sh -k golden
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^# /s/^# //p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/python scripts/check_vocabulary.py
.venv/bin/mypy
# One thread per worker, because there is one worker per core.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto "$@"
