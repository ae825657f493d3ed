#!/usr/bin/env bash
# Test the models of train_monet_etretat.sh: one painting by Monet to one photo of Étretat. See --help.
exec bash "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" test monet_etretat "$@"
