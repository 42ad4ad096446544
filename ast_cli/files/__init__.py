"""Files and folders: whole or not at all, one writer at a time, JSON, the user's cache."""
