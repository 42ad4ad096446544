"""What containers and frames claim, and which of FFmpeg's demuxers may read them."""
