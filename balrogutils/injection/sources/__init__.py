"""Where the objects to inject come from: one module a kind of catalogue."""
