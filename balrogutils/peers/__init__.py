"""Another code behind the same fits, where it is installed; nothing needs it."""
