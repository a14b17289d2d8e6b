"""The precision that denoisers compute in."""

from __future__ import annotations

import torch

from autophagy.common.errors import UserError


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which a denoiser computes in `float32` or `bfloat16`; weights stay float32.

    Raises:
        UserError: bfloat16 on a GPU that has none. A CPU without it computes the same, slowly.
    """
    wanted = precision == "bfloat16"
    if wanted and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"precision = bfloat16: the GPU of this node, {name}, has none; set it to float32")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
