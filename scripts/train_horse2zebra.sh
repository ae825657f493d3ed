#!/usr/bin/env bash
# Trains a translation: horses to zebras. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train horse2zebra "$@"
