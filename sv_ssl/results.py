"""`python -m sv_ssl.results results/` makes the tables of recorded runs: see sv_ssl.reporting.result_tables."""

import sys

from sv_ssl.reporting.result_tables import main

if __name__ == "__main__":
    sys.exit(main())
