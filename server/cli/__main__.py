"""`python -m server.cli`: the command line with which the program starts a server of its own."""

from server.cli import main

main()
