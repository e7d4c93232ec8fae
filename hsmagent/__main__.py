"""`python -m hsmagent` is the program `hsmagent`."""

from hsmagent.cli import main

main()
