"""Results as text: one file a format, one dictionary of writers."""
