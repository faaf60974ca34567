"""One module per command: `summary`, `example`, `add_arguments(parser)`, `run(arguments, terminal) -> exit code`."""
