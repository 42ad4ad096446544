"""Our engines and the reference, measured in turns."""
