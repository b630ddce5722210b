"""Every configuration file as a frozen, validated object."""
