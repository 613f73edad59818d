"""The command line, as `python -m divprune`."""

from divprune.cli.main import app

if __name__ == "__main__":
    app(prog_name="divprune")
