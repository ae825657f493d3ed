#!/usr/bin/env bash
# Translates with what train_grumpifycat.sh trained: Russian Blue cats to Grumpy Cat. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test grumpifycat "$@"
