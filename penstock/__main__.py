"""`python -m penstock` is `penstock`."""

from penstock.engine.cli.main import command

if __name__ == "__main__":
    raise SystemExit(command())
