"""Where single-epoch data come from: SQL and transfer."""
