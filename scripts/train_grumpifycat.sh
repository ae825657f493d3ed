#!/usr/bin/env bash
# Train a model: Russian Blue cats to Grumpy Cat. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train grumpifycat "$@"
