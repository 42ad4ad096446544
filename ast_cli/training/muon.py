"""Muon: an optimizer that updates matrices by their orthogonalized momentum, and all other parameters by AdamW.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the update of a matrix by the nearest
matrix whose singular values are all equal, so that directions in which gradients are rare are learned as fast as the
others. torch.optim.Muon is not used: it multiplies in bfloat16, which takes ten times as long on processors without
bfloat16 (4.3 s per update against 0.4 s, 192x6), and it treats the fused query, key and value as one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

# From the post: a quintic polynomial with the largest possible slope at 0, so that five steps bring singular values
# above 1e-3 to between 0.7 and 1.2, which works as well as 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5
MOMENTUM = 0.95
# Multiplied by the root of the longer side. The root mean square of an update is then that of AdamW, about 0.2 of the
# rate, and learning rates of AdamW can be used (Liu et al., 2025, https://arxiv.org/abs/2502.16982, equation 4).
ADAMW_RMS = 0.2


class Muon(torch.optim.AdamW):
    """AdamW, but parameter groups with ``num_parts`` contain matrices and are updated by Muon.

    ``num_parts`` is the number of matrices of equal height that are stacked in each parameter of the group: 3 for a
    fused query, key and value.
    """

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters; the gradients of the matrices are set to None."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "num_parts" in group:
                for parameter in group["params"]:
                    self._move(parameter, group)
                    parameter.grad = None  # AdamW skips it
        super().step()
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Update one matrix, or stack of matrices, by its Nesterov momentum."""
        if parameter.grad is None:
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects it in a state that it loads
            state["momentum"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        update = parameter.grad.lerp(momentum, MOMENTUM).view(group["num_parts"], -1, parameter.shape[1])
        scale = ADAMW_RMS * math.sqrt(max(update.shape[-2:]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalized(update).flatten(0, 1), alpha=-group["lr"] * scale)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Bring the singular values of each matrix (number, rows, columns) close to 1, by Newton-Schulz iterations.

    Each iteration replaces x by p(x x^T) x. If x is much longer than high, the iterations work on x x^T, which is
    smaller, and the product of the factors is multiplied by x once at the end. This is the same product in another
    order, and takes 0.6 of the time at 192 x 768.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if is_tall else matrices  # so that x x^T is the smaller product
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    if x.shape[-1] < 2 * x.shape[-2]:
        for _ in range(NUM_STEPS):
            x = _factor(x @ x.mT) @ x
    else:
        gram = x @ x.mT
        factors = factor = _factor(gram)
        for _ in range(NUM_STEPS - 1):
            gram = factor @ gram @ factor
            factor = _factor(gram)
            factors = factor @ factors
        x = factors @ x
    return x.mT if is_tall else x


def _factor(gram: Tensor) -> Tensor:
    """Return p(x x^T), the polynomial that x is multiplied by."""
    a, b, c = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor
