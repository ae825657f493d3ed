"""Name the scripts that replace the published `python -m experiments`."""

import sys

from util.terminal import print_line

MESSAGE = (
    "error: experiments: replaced by the scripts scripts/train_*.sh and scripts/test_*.sh. Instead of "
    "`python -m experiments grumpifycat train 0`, use `bash scripts/train_grumpifycat.sh cut`; --dry-run prints its command."
)

if __name__ == "__main__":
    print_line(MESSAGE, file=sys.stderr)
    sys.exit(2)
