"""The synthetic sky and telescope behind the embedded archive."""
