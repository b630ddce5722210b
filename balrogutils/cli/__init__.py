"""The command line: one subcommand per block."""
