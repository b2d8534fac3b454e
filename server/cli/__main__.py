"""`python -m server.cli`: how the program starts a server of its own."""

from server.cli import main

main()
