#!/usr/bin/env bash
# Train a model: one painting by Monet to one photo of Étretat. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train monet_etretat "$@"
