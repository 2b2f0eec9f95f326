"""`python -m randes_cli` is the `randes` command."""

from randes_cli.cli.main import main

main()
