"""Truth to measurement: one-to-one positional matches, and the table of both."""
