"""Devices that torch can compute on."""

from cache.errors import UserError

KINDS = ("cpu", "cuda", "mps", "xpu")


def check_device(name: str) -> str:
    """The name of a device that this machine has: "cpu", "cuda", "cuda:1", "mps", "xpu".

    Raises:
        UserError: for a name that is none of these, and for a device that is not there.
    """
    kind, _, number = name.partition(":")
    if kind not in KINDS or (":" in name and not (number.isascii() and number.isdigit())):
        raise UserError(
            f"There is no device '{name}': give one of {', '.join(KINDS)}, or one of several as cuda:1."
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
            f"The device '{name}' is not there: this machine has {there}. Leave --device out for the CPU."
        )
    return name
