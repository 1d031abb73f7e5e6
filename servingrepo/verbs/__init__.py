"""One file per verb: its options, its result, its function."""
