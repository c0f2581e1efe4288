"""A random audio autoencoder of eight latent channels, 25 latent frames a second at 16 kHz."""

from diffusers import AutoencoderOobleck

LATENT_CHANNELS = 8


def tiny_vae(audio_channels: int) -> AutoencoderOobleck:
    """A VAE of the class shared by ACE-Step 1.5 and Stable Audio Open."""
    return AutoencoderOobleck(
        encoder_hidden_size=2 * LATENT_CHANNELS,
        downsampling_ratios=[16, 4, 10],
        channel_multiples=[1, 1, 1],
        decoder_channels=8,
        decoder_input_channels=LATENT_CHANNELS,
        audio_channels=audio_channels,
        sampling_rate=16000,
    )
