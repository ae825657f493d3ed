#!/usr/bin/env bash
# Trains a translation: Russian Blue cats to Grumpy Cat. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train grumpifycat "$@"
