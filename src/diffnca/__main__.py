"""Run the command line: `python -m diffnca`."""

import sys

from diffnca.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
