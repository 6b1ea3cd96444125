"""``python -m headwater``: the command, for where it is not installed (a checkout, the image)."""

import sys

from .command import main

sys.exit(main())
