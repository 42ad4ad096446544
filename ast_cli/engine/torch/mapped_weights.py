"""Keep the mapped weights of a block in memory only while the block runs, where that costs next to no time."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from ast_cli.model.mapped_file import give_back
from ast_cli.model.transformer import ASTForAudioClassification

# Giving back 21 MB and reading them from the system's cache again takes 1.7 ms (one thread, AVX-512 machine of
# docs/performance.md). That is 2 % of the run time of a block that processes its weights at this rate. At base size on
# two cores of that machine the rate is 0.19 GB/s.
MAX_BYTES_PER_S = 0.25e9
MIN_BYTES = 4_000_000  # weights of a block; smaller blocks gain little and run no longer than the call takes


def give_back_behind(model: ASTForAudioClassification) -> None:
    """Make each block give back the pages of its weights that lie in a mapped file once it has run."""
    for block in model.audio_spectrogram_transformer.blocks:
        hooks = _BlockHooks(block)
        if hooks.num_bytes >= MIN_BYTES:
            block.register_forward_pre_hook(hooks.enter)
            block.register_forward_hook(hooks.leave)


class _BlockHooks:
    """Forward hooks that give back the pages of a block if the block ran slowly enough."""

    def __init__(self, block: nn.Module) -> None:
        self.weights = list(block.parameters())
        self.num_bytes = give_back(self.weights)

    def enter(self, *_: Any) -> None:
        self.start_s = time.perf_counter()

    def leave(self, *_: Any) -> None:
        if self.num_bytes < (time.perf_counter() - self.start_s) * MAX_BYTES_PER_S:
            give_back(self.weights)
