"""Lengths stated by containers and frames, and the selection of FFmpeg's demuxers."""
