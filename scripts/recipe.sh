#!/usr/bin/env bash
# The paper's experiments, behind scripts/train_*.sh and scripts/test_*.sh: which data, which options. Numbers of epochs,
# rates and the like are the methods' own defaults.
set -euo pipefail
case ${1:-}/${2:-} in
  train/?* | test/?*) ;;
  *)
    echo "error: recipe.sh is called by the others, such as: bash scripts/train_horse2zebra.sh --help" >&2
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
both=()       # options of training and testing
testing=()    # options of testing alone
case $experiment in
  grumpifycat)
    name=grumpycat
    testing=(--phase train)    # there is no test half
    get="fetch it with: bash $root/datasets/download_cut_dataset.sh grumpifycat"
    ;;
  horse2zebra)
    testing=(--num_test 120)
    get="fetch it with: bash $root/datasets/download_cut_dataset.sh horse2zebra"
    ;;
  cat2dog)
    testing=(--num_test 500)
    get="make it from AFHQ with $root/datasets/prepare_cat2dog_dataset.py, as docs/datasets.md says"
    ;;
  cityscapes)
    both=(--direction BtoA)    # from label maps to photos
    testing=(--num_test 500)
    get="make it from the official archives with $root/datasets/prepare_cityscapes_dataset.py, as docs/datasets.md says"
    ;;
  monet_etretat)
    methods=sincut
    dataset=single_image_monet_etretat
    name=singleimage_monet_etretat
    get="put the painting into its trainA and the photo into its trainB, as docs/datasets.md says"
    ;;
  *)
    echo "error: there is no experiment '$experiment'" >&2
    exit 2
    ;;
esac
default=${methods%% *}

help() {
  cat <<END
usage: bash scripts/${program}_$experiment.sh [${methods// /|}] [--dry-run] [options of $program.py]

Runs $program.py as for the paper's experiment. The method is $default unless another one comes first. Options of
$program.py win over the recipe's; $program.py --help lists them. Works from any folder; weights and pages go to the
project's checkpoints and results.

  --dry-run   print the command instead of running it

Status: 2 for wrong usage or a dataset that is not there, else that of $program.py.
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
  echo "error: there is no method '$method' for $experiment; choose one of: $methods" >&2
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
  echo "error: there is no $dataroot; $get" >&2
  exit 2
fi
exec "${command[@]}"
