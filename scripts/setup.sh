#!/usr/bin/env bash
# Create .venv with all packages for running and testing. Safe to run twice.
# Choose the interpreter (3.11 or newer) with: PYTHON=python3.12 bash scripts/setup.sh
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^# /s/^# //p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
VISDOM_FOR_PYTHON_311="visdom==0.2.4"

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $PYTHON is missing or older than Python 3.11. Use another one: PYTHON=python3.12 bash scripts/setup.sh" >&2
  exit 2
fi

# The stamp is written last, so that an interrupted installation is repeated.
stamp=.venv/installed
wanted=$(cat requirements.txt requirements-extra.txt requirements-dev.txt scripts/setup.sh; "$PYTHON" --version)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  echo "setup.sh: .venv is up to date"
  exit 0
fi

# Replace a .venv of another Python version, or one whose Python is gone.
if [ "$(.venv/bin/python --version 2>/dev/null)" != "$("$PYTHON" --version)" ]; then
  "$PYTHON" -m venv --clear .venv
fi
echo "setup.sh: installing into .venv; this takes some minutes, because torch with its CUDA libraries has several GB"
.venv/bin/python -m pip install --quiet --requirement requirements-dev.txt

# visdom 0.3 needs Python 3.12. The last release for 3.11 has no wheel, and its build needs setuptools older than 81. Only
# a constraint applies to the build environment; a requirement does not.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
  constraint=$(mktemp)
  trap 'rm -f "$constraint"' EXIT
  echo "setuptools<81" >"$constraint"
  PIP_CONSTRAINT=$constraint PIP_BUILD_CONSTRAINT=$constraint \
    .venv/bin/python -m pip install --quiet "$VISDOM_FOR_PYTHON_311" "setuptools<81" ||
    echo "warning: visdom could not be installed; training works without it, but does not log to visdom" >&2
fi

printf '%s\n' "$wanted" >"$stamp"
echo "setup.sh: done; activate it with: source .venv/bin/activate"
