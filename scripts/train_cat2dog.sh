#!/usr/bin/env bash
# Trains a translation: cats to dogs. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train cat2dog "$@"
