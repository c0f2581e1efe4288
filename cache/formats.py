"""Export formats of activations. Imports nothing slow: `workbench cache export` takes its choices from here."""

from typing import Literal

Format = Literal["safetensors", "npy"]
ExportDtype = Literal["stored", "float32"]
