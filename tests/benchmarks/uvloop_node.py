"""`python -m clockwork` on uvloop, to see what it would be worth; `pip install uvloop` first."""

import asyncio
import sys

import uvloop

from clockwork.__main__ import main

if __name__ == "__main__":
    # The policy is deprecated from Python 3.14 on; asyncio.run has no other way to be given a loop from outside.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    sys.exit(main())
