"""python -m evals."""

from evals.commands.app import main

main()
