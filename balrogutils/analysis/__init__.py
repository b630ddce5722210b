"""What many objects say together."""
