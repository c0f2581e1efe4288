"""Published sparse autoencoders: folders of SAELens, of sparsify, and of TADA (arXiv 2602.11910), which are sparsify's.

All have a `cfg.json`; the name of the file with the weights says whose it is.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cache.errors import UserError
from workbench.artefacts.lora import load_safetensors
from workbench.artefacts.sources import Origin, check_inside, open_source, read_settings, sha256_of
from workbench.artefacts.sparsify import CONFIG, WEIGHTS, from_sparsify
from workbench.engine.sites import Site
from workbench.sae.base import SAE
from workbench.sae.folder import from_saelens
from workbench.sae.stored import WEIGHTS_FILE as SAELENS_WEIGHTS

_FILES = (CONFIG, WEIGHTS, SAELENS_WEIGHTS)
_HOOKPOINT = re.compile(r"(?:transformer_blocks\.|tf)(\d+)[._-]cross[_-]attn")


@dataclass(frozen=True)
class PublishedSAE:
    """A published autoencoder, with the site and guidance pass it was trained on."""

    kind: ClassVar[str] = "sae"

    site: str
    pass_name: str
    sae: SAE
    origin: Origin


def read_sae(source: str, site: str = "", pass_name: str = "") -> PublishedSAE:
    """Read and validate a published autoencoder.

    Args:
        source: its folder, or a folder of several.
        site: its site; required if neither the folder's name nor its settings give it, or to choose one of several.
        pass_name: the guidance pass it was trained on; by default that in its settings, else the conditional one.

    Raises:
        UserError: if files are missing, damaged or in another format, or their settings are not supported.
    """
    root = open_source(source, [*_FILES, *(f"*/{name}" for name in _FILES)])
    folder = _folder(root, source, site)
    check_inside(root, *(folder / name for name in _FILES))
    settings = read_settings(folder / CONFIG)
    named = site or _site_in(settings) or _site(folder.name) or _site(source)
    if not named:
        raise UserError(
            f"The name of {source} does not include the site. Give the site, such as tf6.cross_attn."
        )
    file = folder / (SAELENS_WEIGHTS if (folder / SAELENS_WEIGHTS).exists() else WEIGHTS)
    origin = Origin(source, file, sha256_of(file), settings)
    metadata = {
        **_metadata(settings),
        "hook_name": str(Site.parse(named)),
        "pass_name": pass_name or _pass_in(settings),
        "source": source,
        "source_sha256": origin.sha256,
    }
    weights = load_safetensors(file)
    if file.name == WEIGHTS:
        sae = from_sparsify(settings, weights, folder, {**metadata, "source_config": settings})
    else:
        sae = from_saelens({**settings, "metadata": metadata}, weights, folder)
    return PublishedSAE(metadata["hook_name"], metadata["pass_name"], sae, origin)


def _metadata(settings: dict[str, Any]) -> dict[str, Any]:
    metadata = settings.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _pass_in(settings: dict[str, Any]) -> str:
    name = _metadata(settings).get("pass_name")
    return name if isinstance(name, str) else "cond"


def _site_in(settings: dict[str, Any]) -> str:
    """Return the site that the settings name, "" for that of another library."""
    with suppress(UserError):
        return str(Site.parse(str(_metadata(settings).get("hook_name"))))
    return ""


def _folder(root: Path, source: str, site: str) -> Path:
    if (root / CONFIG).exists():
        return root
    folders = sorted(file.parent for file in root.glob(f"*/{CONFIG}")) if root.is_dir() else []
    if site and len(folders) > 1:
        folders = [folder for folder in folders if _site(folder.name) == site]
    if len(folders) != 1:
        problem = (
            f"several autoencoders ({', '.join(folder.name for folder in folders)})"
            if folders
            else f"no {CONFIG}"
        )
        raise UserError(f"{source} has {problem}. Give the folder of one autoencoder, or its site.")
    return folders[0]


def _site(name: str) -> str:
    match = _HOOKPOINT.search(name)
    return f"tf{match[1]}.cross_attn" if match else ""
