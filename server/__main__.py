"""`python -m server` is `deviceops`."""

from server.cli import main

if __name__ == "__main__":
    main()
