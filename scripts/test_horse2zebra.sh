#!/usr/bin/env bash
# Test the models of train_horse2zebra.sh: horses to zebras. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test horse2zebra "$@"
