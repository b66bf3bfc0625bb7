"""The command line: python -m ddpm_edu train | sample | evaluate | judge | trajectory | export | classifier | data.

Exit status 0 done; 2 wrong use or bad input, with one line on stderr; 130 interrupted; 1 another process that trained
with this one is gone.
"""

import sys
from collections.abc import Sequence

import torch

from ddpm_edu import distributed
from ddpm_edu.commands import PROG
from ddpm_edu.commands.flags import parser

GONE = "another process of this training is gone; the last checkpoint is whole: start all again with --resume"
NO_MEMORY = "not enough memory: expected smaller numbers for --batch or --n, or a larger one for --accumulate"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; SystemExit where argparse ends it (--help, wrong flags)."""
    args = parser().parse_args(argv)
    speaks = distributed.local_rank() == 0  # what every process would say is said once on a machine
    try:
        status: int = args.run(args)
        return status
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except OSError as error:
        message, status, speaks = f"{error.filename}: {error.strerror}" if error.filename else str(error), 2, True
    except ValueError as error:
        message, status = str(error), 2
    except RuntimeError as error:
        no_memory = isinstance(error, torch.OutOfMemoryError)  # of a GPU; the CPU's has no type of its own
        if no_memory or any(sign in str(error) for sign in ("can't allocate memory", "calculation overflowed")):
            message, status, speaks = NO_MEMORY, 2, True
        elif distributed.rank_is_gone(error):
            message, status = GONE, 1
        else:
            raise
    if speaks:
        print(f"{PROG} {args.command}: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
