"""Known objects put into single-epoch images, and the truth about them."""
