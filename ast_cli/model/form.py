"""The forms of encoder: what distinguishes EAT's transformer from AST's besides its sizes. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EncoderForm:
    """A form of encoder; sizes, rates and labels are in `ASTConfig`.

    Attributes:
        model_type: Name in ``config.json``.
        num_prefix_tokens: Number of learned tokens before the patches, whose mean the head reads.
        time_major: Whether patches are ordered by time and then by frequency, instead of the reverse; the rows of a
            patch are then frames.
        norm_first: Whether a block normalizes the input of attention and MLP, and the encoder the output of the last
            block. Otherwise a block normalizes the sums after attention and MLP, and the encoder the embeddings.
        fixed_positions: Whether positions are a fixed table for patches alone, which may have more rows along time than
            a window. Otherwise every token of a window has a learned position.
    """

    model_type: str
    num_prefix_tokens: int
    time_major: bool
    norm_first: bool
    fixed_positions: bool


# Gong, Chung, Glass, 2021: a classification and a distillation token, as in DeiT.
AST = EncoderForm(
    "audio-spectrogram-transformer", num_prefix_tokens=2, time_major=False, norm_first=True, fixed_positions=False
)
# Chen et al., 2024, and SSLAM (Alex et al., 2025): a classification token, as in data2vec 2.0.
EAT = EncoderForm("eat", num_prefix_tokens=1, time_major=True, norm_first=False, fixed_positions=True)
FORMS = {form.model_type: form for form in (AST, EAT)}
