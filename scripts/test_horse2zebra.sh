#!/usr/bin/env bash
# Translates with what train_horse2zebra.sh trained: horses to zebras. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test horse2zebra "$@"
