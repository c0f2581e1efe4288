"""A map of an autoencoder's features: the two principal components of its decoder's directions."""

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits


def decoder_map(
    w_dec: Float[np.ndarray, "feature channel"],
) -> tuple[Float[np.ndarray, "feature 2"], Float[np.ndarray, "2"]]:
    """Return the place of each feature, and the shares of the variance of the directions that the two axes have.

    Directions are decoder rows of length 1; rows of zeros stay at zero.
    """
    lengths = np.linalg.norm(w_dec, axis=1, keepdims=True)
    directions = np.divide(w_dec, lengths, out=np.zeros_like(w_dec), where=lengths > 0)
    components = min(2, *directions.shape)
    pca = PCA(n_components=components, svd_solver="randomized", random_state=0)
    with threadpool_limits(limits=1):  # the same places on machines with other numbers of cores
        places = pca.fit_transform(directions)
    missing = 2 - components
    return (
        np.pad(places, ((0, 0), (0, missing))).astype(float),
        np.pad(np.nan_to_num(pca.explained_variance_ratio_), (0, missing)).astype(float),
    )
