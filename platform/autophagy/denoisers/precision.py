"""bfloat16 where the hardware has it."""

from __future__ import annotations

import torch


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The autocast type: bfloat16 where asked for, or by `auto` where the hardware multiplies it natively."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which the denoiser computes in the resolved precision; weights stay float32."""
    dtype = resolve_precision(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)
