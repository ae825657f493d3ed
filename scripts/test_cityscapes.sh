#!/usr/bin/env bash
# Test the models of train_cityscapes.sh: label maps to street scenes. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test cityscapes "$@"
