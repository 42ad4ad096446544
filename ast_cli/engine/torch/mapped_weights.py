"""A model's weights in memory only while their block is at work, where that costs next to nothing."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from ast_cli.model.mapped_file import give_back
from ast_cli.model.transformer import ASTForAudioClassification

# Giving back 21 MB and fetching them from the system's cache again takes 1.7 ms (one thread, AVX-512 machine of
# docs/performance.md): of a block that takes this long for its bytes, 2 %. Base size on two cores there: 0.19 GB/s.
MAX_BYTES_PER_S = 0.25e9
MIN_BYTES = 4_000_000  # of a block; below, there is little to gain, and a block takes no longer than a call


def give_back_behind(model: ASTForAudioClassification) -> None:
    """Let each block give back the pages of its weights, as far as they lie in a mapped file, once it has run."""
    for block in model.audio_spectrogram_transformer.blocks:
        behind = _BehindBlock(block)
        if behind.num_bytes >= MIN_BYTES:
            block.register_forward_pre_hook(behind.enter)
            block.register_forward_hook(behind.leave)


class _BehindBlock:
    """Gives back one block's pages."""

    def __init__(self, block: nn.Module) -> None:
        self.weights = list(block.parameters())
        self.num_bytes = give_back(self.weights)

    def enter(self, *_: Any) -> None:
        self.start_s = time.perf_counter()

    def leave(self, *_: Any) -> None:
        if self.num_bytes < (time.perf_counter() - self.start_s) * MAX_BYTES_PER_S:
            give_back(self.weights)
