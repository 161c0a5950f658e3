"""A convolution whose weight gradient is fast on small maps, where a CPU computes in bfloat16.

oneDNN (torch 2.13) finds the gradient of a 3x3 convolution's weight 3 to 6 times slower than its output where maps are
7x7 or smaller: at 512 maps of 4x4 and 512 channels on one core with AMX 264 ms against 88 ms. As nine matrix products,
one for each place of the kernel, it takes 66 ms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AREA = 7 * 7
"""Pixels of an output map up to which matrix products are faster; at 8x8 they are not, below 256 channels."""
WEIGHTS = 64 * 128
"""Input times output channels from which they are."""


class Convolution(nn.Conv2d):
    """`torch.nn.Conv2d`: the same output and gradients, those of the weight by matrix products where that is faster."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (torch.is_grad_enabled() and bias is None and self._products_are_faster(input)):
            return super()._conv_forward(input, weight, bias)
        stride, padding = (self.stride[0], self.stride[1]), (int(self.padding[0]), int(self.padding[1]))
        found = _ByPlaces.apply(input.bfloat16(), weight.bfloat16(), stride, padding)
        assert isinstance(found, Tensor)
        return found

    def _products_are_faster(self, input: Tensor) -> bool:
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or input.dtype == torch.float64:
            return False
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str) or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return False
        sides = zip(input.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        height, width = ((side + 2 * around - kernel) // stride + 1 for side, kernel, stride, around in sides)
        return height * width <= AREA and self.in_channels * self.out_channels >= WEIGHTS


class _ByPlaces(torch.autograd.Function):
    """A convolution without bias; see `weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x, weight), (grad,), (of_x, of_weight) = ctx.saved_tensors, grads, (None, None)
        if ctx.needs_input_grad[0]:
            given = (None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (True, False, False))
            of_x = torch.ops.aten.convolution_backward(grad, x, weight, *given)[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, grad, (weight.shape[2], weight.shape[3]), ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def weight_gradient(
    x: Tensor, grad: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Gradient of a convolution's weight: at each place of the kernel, `grad^T x` with x as it is seen from there.

    Args:
        x: Input `[B, C, h, w]`.
        grad: Gradient of the output `[B, D, p, q]`.
        kernel: Its height and width.
        stride: Down and across.
        padding: Zeros above and below, at the left and the right.

    Returns:
        `[D, C, *kernel]`, channels last.

    Example:
        >>> weight_gradient(torch.ones(1, 2, 3, 3), torch.ones(1, 4, 2, 2), (2, 2), (1, 1), (0, 0))[0, 0].tolist()
        [[4.0, 4.0], [4.0, 4.0]]
    """
    (batch, width, high, wide), channels = grad.shape, x.shape[1]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    rows = grad.permute(0, 2, 3, 1).reshape(batch * high * wide, width).T
    found = x.new_empty(*kernel, width, channels)
    for down in range(kernel[0]):
        for across in range(kernel[1]):
            seen = padded[:, down : down + stride[0] * high : stride[0], across : across + stride[1] * wide : stride[1]]
            torch.mm(rows, seen.reshape(-1, channels), out=found[down, across])
    return found.permute(2, 3, 0, 1)
