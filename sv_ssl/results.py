"""`python -m sv_ssl.results results/` makes the tables of recorded runs: see sv_ssl.reporting.result_tables."""

import sys

from sv_ssl.core import command

if __name__ == "__main__":
    sys.exit(command.start("sv_ssl.reporting.result_tables"))
