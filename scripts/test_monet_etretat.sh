#!/usr/bin/env bash
# Translates with what train_monet_etretat.sh trained: one painting by Monet to one photo of Étretat. --help says more.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test monet_etretat "$@"
