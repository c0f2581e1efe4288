"""Make the weights of the musicnn scorer from the published wheel, and outputs of its TensorFlow graph.

Run in an environment with TensorFlow and librosa, the unpacked wheel of musicnn 0.1.0 on the path; see README.md.
"""

import os
import sys

import librosa
import musicnn
import numpy as np
import tensorflow as tf
from musicnn import configuration, models
from safetensors.numpy import save_file

from tests.oracles.musicnn_clips import clips

tf.compat.v1.disable_eager_execution()

FRAMES = 187
# Where each parameter of `MusicnnNetwork` is in the checkpoint: numbers of its convolutions and batch normalisations.
FILTERS = [*((f"front.{i}", i, i + 1) for i in range(5)), *((f"middle.{i}", i + 5, i + 6) for i in range(3))]
NORMS = [
    ("input_norm", 0),
    *((f"{name}.norm", norm) for name, _, norm in FILTERS),
    ("pooled_norm", 9),
    ("dense_norm", 10),
]
DENSE = [("dense", "dense"), ("tags", "dense_1")]


def numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def weights(checkpoint: str) -> dict[str, np.ndarray]:
    read = tf.compat.v1.train.NewCheckpointReader(checkpoint).get_tensor
    found = {}
    for name, number in NORMS:
        for ours, theirs in (
            ("weight", "gamma"),
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ):
            found[f"{name}.{ours}"] = read(f"{numbered('batch_normalization', number)}/{theirs}")
    for name, number, _ in FILTERS:
        layer = numbered("conv2d", number)
        found[f"{name}.convolution.weight"] = read(f"{layer}/kernel").transpose(3, 2, 0, 1)
        found[f"{name}.convolution.bias"] = read(f"{layer}/bias")
    for name, layer in DENSE:
        found[f"{name}.weight"], found[f"{name}.bias"] = read(f"{layer}/kernel").T, read(f"{layer}/bias")
    found["mel"] = librosa.filters.mel(
        sr=configuration.SR, n_fft=configuration.FFT_SIZE, n_mels=configuration.N_MELS, dtype=np.float64
    )
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def spectrograms(clip: np.ndarray) -> np.ndarray:
    """As `musicnn.extractor.batch_data`, in float64 up to the rounding, and then in float32, as its NumPy did."""
    mel = librosa.feature.melspectrogram(
        y=clip,
        sr=configuration.SR,
        hop_length=configuration.FFT_HOP,
        n_fft=configuration.FFT_SIZE,
        n_mels=configuration.N_MELS,
        dtype=np.float64,
    ).T
    logs = np.log10(np.float32(10000) * mel.astype(np.float16).astype(np.float32) + np.float32(1))
    return np.stack([logs[start : start + FRAMES] for start in range(0, len(logs) - FRAMES + 1, FRAMES)])


def outputs(checkpoint: str, batch: np.ndarray) -> np.ndarray:
    """Probabilities of the tags from the original graph."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, FRAMES, configuration.N_MELS])
        logits = models.define_model(x, tf.constant(False), "MTT_musicnn", len(configuration.MTT_LABELS))[0]
        tf.compat.v1.train.Saver().restore(session, checkpoint)
        return session.run(tf.sigmoid(logits), {x: batch})


def main(weights_file: str, fixture: str) -> None:
    checkpoint = os.path.join(os.path.dirname(musicnn.__file__), "MTT_musicnn", "")
    save_file(weights(checkpoint), weights_file, {"tags": "\n".join(configuration.MTT_LABELS)})
    found = [spectrograms(clip) for clip in clips()]
    np.savez_compressed(
        fixture,
        spectrogram=np.stack([each[0] for each in found]),
        probability=np.stack([outputs(checkpoint, each).mean(0) for each in found]),
        first=np.concatenate([outputs(checkpoint, each[:1]) for each in found]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
