#!/usr/bin/env bash
# Translates with what train_cityscapes.sh trained: label maps to street scenes. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test cityscapes "$@"
