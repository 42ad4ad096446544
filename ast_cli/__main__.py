"""``python -m ast_cli`` is the same as ``ast``."""

from ast_cli.cli import main

if __name__ == "__main__":
    main()
