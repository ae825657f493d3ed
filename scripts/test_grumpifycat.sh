#!/usr/bin/env bash
# Test the models of train_grumpifycat.sh: Russian Blue cats to Grumpy Cat. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test grumpifycat "$@"
