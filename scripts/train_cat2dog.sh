#!/usr/bin/env bash
# Train a model: cats to dogs. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train cat2dog "$@"
