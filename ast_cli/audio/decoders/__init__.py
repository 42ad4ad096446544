"""The two decoders, libsndfile and FFmpeg, and which of them reads a file."""
