#!/usr/bin/env bash
# Download the weights that the authors of CUT released, to checkpoints/<name>. Needs only Python 3.11 or newer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

help() {
  cat <<END
usage: bash scripts/download_pretrained_models.sh

Download the released weights, check the archive, and extract each run to checkpoints/<name>/latest_net_G.pth and so on.
Existing runs are kept. No file of the archive is loaded. docs/datasets.md has the test commands.

Environment:
  CUT_PRETRAINED_URL    archive to download instead of http://efrosgans.eecs.berkeley.edu/CUT/pretrained_models.tar
  CUT_CHECKPOINTS_DIR   folder for the runs instead of $root/checkpoints
  and all variables of datasets/download_cut_dataset.sh (see its --help)

Exit status: 0 for success, 1 if the download failed, 2 for invalid usage, 130 if interrupted.
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
echo "error: Python 3.11 or newer not found. Set PYTHON: PYTHON=python3.12 bash scripts/download_pretrained_models.sh" >&2
exit 1
