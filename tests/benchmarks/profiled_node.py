"""`python -m clockwork` under a profiler: writes where its CPU time went when it ends, to the file in `BENCH_PROFILE`.

`cProfile` makes everything slower, and calls of small functions more than others: shares are read from it, and numbers of
calls, never times.
"""

import cProfile
import sys
from os import environ

from clockwork.__main__ import main

PROFILE = "BENCH_PROFILE"

if __name__ == "__main__":
    profiler = cProfile.Profile()
    code = profiler.runcall(main)
    if path := environ.get(PROFILE):
        profiler.dump_stats(path)
    sys.exit(code)
