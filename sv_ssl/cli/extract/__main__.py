"""`python -m sv_ssl.cli.extract` is `sv-extract`."""

import sys

from sv_ssl.cli.extract import main

if __name__ == "__main__":
    sys.exit(main())
