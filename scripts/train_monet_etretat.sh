#!/usr/bin/env bash
# Trains a translation: one painting by Monet to one photo of Étretat. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" train monet_etretat "$@"
