#!/usr/bin/env bash
# Test the models of train_cat2dog.sh: cats to dogs. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test cat2dog "$@"
