"""`python -m hsmagent` is the program `hsmagent`."""

from hsmagent.cli.main import main

main()
