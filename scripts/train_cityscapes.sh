#!/usr/bin/env bash
# Train a model: label maps to street scenes. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train cityscapes "$@"
