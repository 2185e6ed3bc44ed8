"""`python -m clockwork.cli`: the same as `clockwork`, where the script is not on the path."""

import sys

from clockwork.cli import main

sys.exit(main())
