#!/usr/bin/env bash
# Train a model: horses to zebras. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train horse2zebra "$@"
