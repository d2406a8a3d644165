"""`python -m tailorbird.cli` is the command `tailor`."""

from tailorbird.cli.main import main

main()
