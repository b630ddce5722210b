"""Many tiles at a glance: what is done, what a run would need, what it would fail for."""
