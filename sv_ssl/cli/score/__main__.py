"""`python -m sv_ssl.cli.score` is `sv-score`."""

import sys

from sv_ssl.cli.score import main

if __name__ == "__main__":
    sys.exit(main())
