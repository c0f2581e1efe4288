"""What activations can be exported as. Imports nothing slow: `workbench cache export` has its choices from here."""

from typing import Literal

Format = Literal["safetensors", "npy"]
ExportDtype = Literal["stored", "float32"]
