"""`python -m penstock` is `penstock`."""

from penstock.engine.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
