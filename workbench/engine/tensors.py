"""Tensors of edits: identified by a hash of their content, stored as safetensors with the JSON that refers to them."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from pydantic import ConfigDict
from safetensors.torch import save

from cache.errors import UserError
from cache.protocol import canonical_json
from workbench.files import replacing
from workbench.tensor_files import load_tensors

FOLDER = "tensors"
MAX_BYTES = 2**30
"""Twice the matrix of an SAE with 2,560 channels and 16 features for each, in float32."""
_HEADER_BYTES = 1024  # more than a file has beside the numbers
_VALUE = "value"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HashedTensor:
    """A tensor on the CPU, in float32 or float64, and the SHA-256 of its dtype, shape and little-endian data.

    Two are equal if their hashes are.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    hash: str
    value: torch.Tensor = field(compare=False, repr=False)

    @classmethod
    def of(cls, values: "Numbers") -> "HashedTensor":
        """Copy values to float32, or float64 if they are float64.

        Raises:
            UserError: if there are no values, too many to be stored, or they are not finite real numbers.
        """
        if isinstance(values, HashedTensor):
            return values
        try:
            given = values.detach() if isinstance(values, torch.Tensor) else torch.tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"A tensor of an edit must have numbers: {error}.") from error
        if given.is_complex() or not given.numel():
            what = "complex ones" if given.is_complex() else "none"
            raise UserError(f"A tensor of an edit must have real numbers, at least one; it has {what}.")
        dtype = torch.float64 if given.dtype == torch.float64 else torch.float32
        if (size := given.numel() * dtype.itemsize) > MAX_BYTES - _HEADER_BYTES:
            raise UserError(
                f"A tensor of an edit must have less than {MAX_BYTES / 2**20:.4g} MiB, so that it can be stored; it "
                f"has {size / 2**20:.4g}."
            )
        value = given.to("cpu", dtype).contiguous()
        if not bool(torch.isfinite(value).all()):
            raise UserError("A tensor of an edit must have finite numbers only; it has NaN or infinity.")
        data = value.numpy()
        digest = hashlib.sha256(canonical_json([data.dtype.name, list(data.shape)]).encode())
        digest.update(np.ascontiguousarray(data, data.dtype.newbyteorder("<")).data)
        name = digest.hexdigest()
        # Many edits with the same large tensor share one copy.
        known = _in_use.get(name)
        if known is None:
            is_copy = not isinstance(values, torch.Tensor) or value.data_ptr() != values.data_ptr()
            known = _in_use[name] = cls(name, value if is_copy else value.clone())
        return known

    @property
    def tensors(self) -> Iterator["HashedTensor"]:
        """Yield itself."""
        yield self

    def to_json(self) -> dict[str, str]:
        """Return its hash as JSON data."""
        return {"tensor": self.hash}


_in_use: WeakValueDictionary[str, HashedTensor] = WeakValueDictionary()


Numbers = HashedTensor | torch.Tensor | np.ndarray | Sequence[int | float | Sequence[int | float]]
"""Types that are accepted as a tensor."""
Tensors = Callable[[str], HashedTensor]
"""Returns the tensor with a hash."""


def save_tensor(root: Path, tensor: HashedTensor) -> None:
    """Write a tensor to `tensors/HASH.safetensors` in the folder `root`."""
    with replacing(_file(root, tensor.hash), root) as partial:
        partial.write_bytes(save({_VALUE: tensor.value}))


def load_tensor(root: Path, name: str) -> HashedTensor:
    """Load the tensor with this hash that `save_tensor` wrote.

    Raises:
        UserError: if it does not exist, is damaged or too large, or its content has another hash.
    """
    if not _HASH.fullmatch(name):
        raise UserError(f"'{name[:80]}' is not the hash of a tensor, which must be 64 hexadecimal digits.")
    file = _file(root, name)
    try:
        tensors, _ = load_tensors(root, file.relative_to(root), MAX_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"The tensor {file} is missing. Copy it from where the edit was made.") from error
    if set(tensors) != {_VALUE} or (tensor := HashedTensor.of(tensors[_VALUE])).hash != name:
        raise UserError(
            f"The content of {file} does not match its name. Copy it again from where the edit was made."
        )
    return tensor


def _file(root: Path, name: str) -> Path:
    return root / FOLDER / f"{name}.safetensors"
