"""`python -m vramtop` is the `vramtop` command."""

from vramtop.cli import main

if __name__ == "__main__":
    main()
