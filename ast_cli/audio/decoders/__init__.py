"""The two decoders, libsndfile and FFmpeg, and the choice between them."""
