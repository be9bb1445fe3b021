"""`python -m stepsearch_data` is the command line."""

from stepsearch_data.cli import main

main()
