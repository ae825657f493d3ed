#!/usr/bin/env bash
# Fetches one of the published datasets into datasets/NAME. Needs nothing but Python 3.11 or newer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

names="  ae_photos apple2orange cezanne2photo facades grumpifycat horse2zebra iphone2dslr_flower
  maps mini mini_colorization mini_pix2pix monet2photo summer2winter_yosemite ukiyoe2photo vangogh2photo"

help() {
  cat <<END
usage: bash datasets/download_cut_dataset.sh NAME

Fetches a dataset, checks it, and unpacks it into datasets/NAME. Names:
$names
docs/datasets.md says what each of them is. cityscapes has a license that has to be accepted first:
see datasets/prepare_cityscapes_dataset.py.

An interrupted download goes on where it stopped when the same command is given again.

Environment:
  CUT_DATASETS_URL    fetch NAME.zip from this address (a mirror) instead of
                      https://efrosgans.eecs.berkeley.edu/cyclegan/datasets
  CUT_DATASETS_DIR    put NAME into this folder instead of $here
  CUT_DOWNLOAD_STALL_SECONDS   give up a connection on which nothing comes for so long (30)
  CUT_DOWNLOAD_TRIES           connections in a row that may be lost (4)
  CUT_SIZE_LIMIT_GB            refuse an archive that is, or unpacks to, more than this (20)
  http_proxy, https_proxy, no_proxy   as everywhere
  PYTHON              the interpreter (.venv's, or else python3)

Status: 0 the dataset is there, 1 it could not be fetched, 2 wrong usage, 130 interrupted.
END
}

case "${1:-}" in -h | --help) help; exit 0 ;; esac
if [ $# -ne 1 ]; then
  help >&2
  exit 2
fi
name=$1

if [ "$name" = cityscapes ]; then
  cat >&2 <<END
cityscapes may not be passed on: its license has to be accepted at https://www.cityscapes-dataset.com. Fetch
leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there, then make the dataset from them:
  python datasets/prepare_cityscapes_dataset.py --leftImg8bit_dir leftImg8bit_trainvaltest.zip \\
    --gtFine_dir gtFine_trainvaltest.zip --output_dir datasets/cityscapes
END
  exit 2
fi
known=no
for published in $names; do
  if [ "$name" = "$published" ]; then known=yes; fi
done
if [ $known = no ]; then
  printf "error: there is no published dataset '%s'; the names are:\n%s\n" "$name" "$names" >&2
  exit 2
fi

url=${CUT_DATASETS_URL:-https://efrosgans.eecs.berkeley.edu/cyclegan/datasets}
for python in "${PYTHON:-$here/../.venv/bin/python}" python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" "$here/download.py" "${url%/}/$name.zip" "${CUT_DATASETS_DIR:-$here}/$name"
  fi
done
echo "error: Python 3.11 or newer was not found; name one: PYTHON=python3.12 bash datasets/download_cut_dataset.sh $name" >&2
exit 1
