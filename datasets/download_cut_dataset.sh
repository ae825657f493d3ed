#!/usr/bin/env bash
# Download one of the published datasets to datasets/NAME. Needs only Python 3.11 or newer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

names="  ae_photos apple2orange cezanne2photo facades grumpifycat horse2zebra iphone2dslr_flower
  maps mini mini_colorization mini_pix2pix monet2photo summer2winter_yosemite ukiyoe2photo vangogh2photo"

help() {
  cat <<END
usage: bash datasets/download_cut_dataset.sh NAME

Download a dataset, check it, and unpack it to datasets/NAME. Names:
$names
docs/datasets.md describes them. cityscapes requires that you accept its license first, see
datasets/prepare_cityscapes_dataset.py.

Run the same command again to resume an interrupted download.

Environment:
  CUT_DATASETS_URL    address of a mirror to download NAME.zip from, instead of
                      https://efrosgans.eecs.berkeley.edu/cyclegan/datasets
  CUT_DATASETS_DIR    folder for NAME, instead of $here
  CUT_DOWNLOAD_STALL_SECONDS   seconds without data after which a connection is closed (30)
  CUT_DOWNLOAD_TRIES           lost connections in a row after which the download fails (4)
  CUT_SIZE_LIMIT_GB            maximum size of the archive and of its contents in gigabytes (20)
  http_proxy, https_proxy, no_proxy   proxy settings
  PYTHON              Python interpreter (default: that of .venv, otherwise python3)

Exit status: 0 the dataset is complete, 1 the download failed, 2 wrong usage, 130 interrupted.
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
error: cityscapes cannot be downloaded automatically. Accept its license at https://www.cityscapes-dataset.com, download
leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there, then create the dataset from them:
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
  printf "error: unknown dataset '%s'. Use one of:\n%s\n" "$name" "$names" >&2
  exit 2
fi

url=${CUT_DATASETS_URL:-https://efrosgans.eecs.berkeley.edu/cyclegan/datasets}
for python in "${PYTHON:-$here/../.venv/bin/python}" python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" "$here/download.py" "${url%/}/$name.zip" "${CUT_DATASETS_DIR:-$here}/$name"
  fi
done
echo "error: Python 3.11 or newer not found. Set PYTHON: PYTHON=python3.12 bash datasets/download_cut_dataset.sh $name" >&2
exit 1
