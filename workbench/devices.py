"""Torch devices."""

from cache.errors import UserError

KINDS = ("cpu", "cuda", "mps", "xpu")


def check_device(name: str) -> str:
    """Return the name of a device of this machine: "cpu", "cuda", "cuda:1", "mps" or "xpu".

    Raises:
        UserError: if the name is invalid, or this machine does not have the device.
    """
    kind, _, number = str(name).partition(":")
    if kind not in KINDS or (":" in name and not (number.isascii() and number.isdigit())):
        raise UserError(
            f"Unknown device '{name}'. Give one of {', '.join(KINDS)}, or a numbered one such as cuda:1."
        )
    if kind == "cpu" and not number:
        return name
    import torch

    count = 1 if kind == "cpu" else getattr(torch, kind).device_count()
    if int(number or 0) >= count:
        there = (
            f"{count} {kind} device{'' if count == 1 else 's'}"
            if count
            else f"no {kind} device that torch can use"
        )
        raise UserError(
            f"Device '{name}' not found: this machine has {there}. Leave out "
            "the device (--device, or device= in Python) to use the CPU."
        )
    return name
