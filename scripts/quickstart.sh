#!/usr/bin/env bash
# Set up .venv, generate the demo dataset, train CUT on it, translate the test images, and evaluate the results against the
# ground truth. Takes about ten minutes on two CPU cores, and uses a GPU if there is one.
# Arguments are passed to train.py: bash scripts/quickstart.sh --gpu_ids -1
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set /{/^# /s/^# //p}' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=quickstart

bash scripts/setup.sh
.venv/bin/python datasets/make_demo_dataset.py --output datasets/demo
.venv/bin/python train.py --dataroot datasets/demo --name "$NAME" --CUT_mode CUT \
  --load_size 64 --crop_size 64 --netG resnet_4blocks --ngf 24 --ndf 32 --init_gain 1 --lr 0.0004 \
  --n_epochs 6 --n_epochs_decay 6 \
  --overwrite --num_threads 1 --print_freq 200 --update_html_freq 400 --display_id -1 "$@"
.venv/bin/python test.py --dataroot datasets/demo --name "$NAME" --load_size 64 --crop_size 64

echo
.venv/bin/python scripts/evaluate.py --results "results/$NAME/test_latest" --dataroot datasets/demo --paired
echo "results:  $PWD/results/$NAME/test_latest/index.html"
echo "training: $PWD/checkpoints/$NAME/web/index.html"
cat <<NEXT

To try next, after: source .venv/bin/activate
  python scripts/translate.py --checkpoint checkpoints/$NAME --input YOUR_IMAGES --output translated --short_side 64  # as trained
  python scripts/app.py
  python train.py --dataroot_A YOUR_DOMAIN_A --dataroot_B YOUR_DOMAIN_B --name mine
NEXT
