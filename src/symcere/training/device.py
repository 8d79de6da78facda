"""Where training runs: one device for everything that is fitted inside `on_device`."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, TypeAlias

import torch

from symcere.errors import ConfigError

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

_CURRENT: ContextVar[torch.device | None] = ContextVar("device", default=None)


def current_device() -> torch.device:
    """The device that a fit begun now would run on; the processor unless `on_device` says otherwise."""
    return _CURRENT.get() or torch.device("cpu")


@contextlib.contextmanager
def on_device(name: str) -> Iterator[torch.device]:
    """Run every fit inside on a device.

    Initial values, batches, negatives and noise are drawn on the processor, so they are the same everywhere; sums run
    in another order on another device, so results differ in their last digits.

    Args:
        name: "cpu", "cuda", "cuda:1", or "auto" for the first GPU where there is one.

    Yields:
        The device.

    Raises:
        ConfigError: If there is no such device.

    Example:
        >>> with on_device("auto") as device:
        ...     device == current_device()
        True
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise ConfigError(f"No device {name!r}. Valid: auto, cpu, cuda, cuda:1 and so on.") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Cannot train on {name!r}. Valid: auto, cpu, cuda, cuda:1 and so on.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        n = torch.cuda.device_count()
        raise ConfigError(f"No device {name!r}: torch sees {n} GPU{'' if n == 1 else 's'} here. Use --device auto.")
    token = _CURRENT.set(device)
    try:
        yield device
    finally:
        _CURRENT.reset(token)


def gathers_bfloat16(device: torch.device) -> bool:
    """Whether a device sums rows in bfloat16 faster than in float32: a processor whose kernels are vectorised."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "DEFAULT"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for matrices in bfloat16; without, they take longer than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch cannot say
    return can.get("avx512_bf16", False) or can.get("amx_bf16", False)
