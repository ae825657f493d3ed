#!/usr/bin/env bash
# Fetches the weights that the authors of CUT released into checkpoints/<name>. Needs nothing but Python 3.11 or newer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

help() {
  cat <<END
usage: bash scripts/download_pretrained_models.sh

Fetches the released weights, checks the archive, and puts each run into checkpoints/<name>/latest_net_G.pth and so on.
Runs that are there already stay as they are. Nothing of them is loaded here; docs/datasets.md has the test commands.

Environment:
  CUT_PRETRAINED_URL    fetch this archive instead of http://efrosgans.eecs.berkeley.edu/CUT/pretrained_models.tar
  CUT_CHECKPOINTS_DIR   put the runs into this folder instead of $root/checkpoints
  and all others of datasets/download_cut_dataset.sh (--help lists them)

Status: 0 the weights are there, 1 they could not be fetched, 2 wrong usage, 130 interrupted.
END
}

case "${1:-}" in -h | --help) help; exit 0 ;; esac
if [ $# -ne 0 ]; then
  help >&2
  exit 2
fi

url=${CUT_PRETRAINED_URL:-http://efrosgans.eecs.berkeley.edu/CUT/pretrained_models.tar}
for python in "${PYTHON:-$root/.venv/bin/python}" python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" "$root/datasets/download.py" --runs "$url" "${CUT_CHECKPOINTS_DIR:-$root/checkpoints}"
  fi
done
echo "error: Python 3.11 or newer was not found; name one: PYTHON=python3.12 bash scripts/download_pretrained_models.sh" >&2
exit 1
