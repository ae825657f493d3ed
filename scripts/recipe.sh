#!/usr/bin/env bash
# Datasets and options of the paper's experiments, for scripts/train_*.sh and scripts/test_*.sh. Other options, such as the
# number of epochs and the learning rate, keep the defaults of the method.
set -euo pipefail
case ${1:-}/${2:-} in
  train/?* | test/?*) ;;
  *)
    echo "error: recipe.sh: not for direct use. Run a script of an experiment: bash scripts/train_horse2zebra.sh --help" >&2
    exit 2
    ;;
esac
program=$1
experiment=$2
shift 2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
root=$here
if [ "$(pwd -P)" = "$here" ]; then root=.; fi

methods="cut fastcut cyclegan"
dataset=$experiment
name=$experiment
both=()       # options for training and testing
testing=()    # options for testing only
case $experiment in
  grumpifycat)
    name=grumpycat
    testing=(--phase train)    # there is no test split
    get="Download it: bash $root/datasets/download_cut_dataset.sh grumpifycat"
    ;;
  horse2zebra)
    testing=(--num_test 120)
    get="Download it: bash $root/datasets/download_cut_dataset.sh horse2zebra"
    ;;
  cat2dog)
    testing=(--num_test 500)
    get="Prepare it from AFHQ with $root/datasets/prepare_cat2dog_dataset.py (see docs/datasets.md)"
    ;;
  cityscapes)
    both=(--direction BtoA)    # from label maps to photos
    testing=(--num_test 500)
    get="Prepare it from the official archives with $root/datasets/prepare_cityscapes_dataset.py (see docs/datasets.md)"
    ;;
  monet_etretat)
    methods=sincut
    dataset=single_image_monet_etretat
    name=singleimage_monet_etretat
    get="Put the painting into its trainA and the photo into its trainB (see docs/datasets.md)"
    ;;
  *)
    echo "error: $experiment: no such experiment" >&2
    exit 2
    ;;
esac
default=${methods%% *}

help() {
  cat <<END
usage: bash scripts/${program}_$experiment.sh [${methods// /|}] [--dry-run] [options of $program.py]

Run $program.py with the options of the paper's experiment. The default method is $default. Options of $program.py override
those of the recipe; $program.py --help lists them. Works from any folder: weights and pages are written to the project's
checkpoints and results.

  --dry-run   print the command without running it

Exit status: 2 for invalid usage or a missing dataset, otherwise that of $program.py.
END
}

dry_run=no
needs_dataset=yes
given=()
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    --dry-run) dry_run=yes; continue ;;
    --dataroot | --dataroot=*) needs_dataset=no ;;
  esac
  given+=("$argument")
done

method=$default
case ${given[0]:-} in
  '' | -*) ;;
  *)
    method=${given[0]}
    given=("${given[@]:1}")
    ;;
esac
if [[ " $methods " != *" $method "* ]]; then
  echo "error: $method: not a method for $experiment. Use one of: $methods" >&2
  exit 2
fi
case $method in
  cut) name+=_CUT; both+=(--CUT_mode CUT) ;;
  fastcut) name+=_FastCUT; both+=(--CUT_mode FastCUT) ;;
  cyclegan) name+=_CycleGAN; both+=(--model cycle_gan) ;;
  sincut) both+=(--model sincut) ;;
esac

python=$root/.venv/bin/python
if [ ! -x "$python" ]; then python=python3; fi
dataroot=$root/datasets/$dataset
command=("$python" "$root/$program.py" --dataroot "$dataroot" --name "$name" --checkpoints_dir "$root/checkpoints" "${both[@]}")
if [ "$program" = test ]; then command+=(--results_dir "$root/results" ${testing[@]+"${testing[@]}"}); fi
command+=(${given[@]+"${given[@]}"})

if [ $dry_run = yes ]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
if [ $needs_dataset = yes ] && [ ! -d "$dataroot" ]; then
  echo "error: $dataroot: no such folder. $get" >&2
  exit 2
fi
exec "${command[@]}"
