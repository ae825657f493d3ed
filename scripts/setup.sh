#!/usr/bin/env bash
# Makes .venv with everything that running and testing need. Safe to run twice.
# PYTHON=python3.12 bash scripts/setup.sh picks the interpreter (3.11 or newer).
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^# /s/^# //p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
VISDOM_FOR_PYTHON_311="visdom==0.2.4"

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "setup.sh: $PYTHON is missing or older than 3.11; name a newer one: PYTHON=python3.12 bash scripts/setup.sh" >&2
  exit 2
fi

# The stamp is written last, so an install that was interrupted is taken up again.
stamp=.venv/installed
wanted=$(cat requirements.txt requirements-extra.txt requirements-dev.txt scripts/setup.sh; "$PYTHON" --version)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  echo "setup.sh: .venv is up to date"
  exit 0
fi

# A .venv of another Python, or one whose Python is gone, is made anew.
if [ "$(.venv/bin/python --version 2>/dev/null)" != "$("$PYTHON" --version)" ]; then
  "$PYTHON" -m venv --clear .venv
fi
echo "setup.sh: installing into .venv; torch with its CUDA libraries is several GB, so this takes some minutes"
.venv/bin/python -m pip install --quiet --requirement requirements-dev.txt

# visdom 0.3 needs Python 3.12. The last release for 3.11 has no wheel and builds only with setuptools older than 81,
# which has to be asked of the build environment: a plain requirement cannot say it.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
  constraint=$(mktemp)
  trap 'rm -f "$constraint"' EXIT
  echo "setuptools<81" >"$constraint"
  PIP_CONSTRAINT=$constraint PIP_BUILD_CONSTRAINT=$constraint \
    .venv/bin/python -m pip install --quiet "$VISDOM_FOR_PYTHON_311" "setuptools<81" ||
    echo "setup.sh: visdom did not install; training works without it, only the live view is missing" >&2
fi

printf '%s\n' "$wanted" >"$stamp"
echo "setup.sh: done; activate it with: source .venv/bin/activate"
