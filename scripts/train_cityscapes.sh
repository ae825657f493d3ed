#!/usr/bin/env bash
# Trains a translation: label maps to street scenes. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train cityscapes "$@"
