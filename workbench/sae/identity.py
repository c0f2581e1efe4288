"""What identifies a sparse autoencoder."""

from workbench.provenance import content_hash
from workbench.sae.base import SAE
from workbench.tensor_files import digests


def weights_hash(sae: SAE) -> str:
    """Return a hash of an autoencoder's weights, and of the settings without which they say nothing, such as k."""
    config = sae.config
    meaning = [config.architecture, config.settings, list(config.scaled_steps)]
    return content_hash(
        [meaning, digests({name: value.cpu().numpy() for name, value in sae.state_dict().items()})]
    )
