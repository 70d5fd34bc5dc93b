"""`python -m adnlib` is the command `adnlib`."""

import sys

from adnlib.cli import main

sys.exit(main())
