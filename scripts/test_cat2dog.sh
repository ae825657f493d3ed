#!/usr/bin/env bash
# Translates with what train_cat2dog.sh trained: cats to dogs. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test cat2dog "$@"
