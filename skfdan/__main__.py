"""``python -m skfdan`` is the command ``skfdan``."""

import sys

from skfdan.cli import main

if __name__ == "__main__":
    sys.exit(main())
