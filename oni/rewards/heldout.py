"""What is kept from learning, and how well a model does on it."""

from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Float

NUM_BINS = 10
"""Bins of equal width that the calibration error is taken over (Guo et al., arXiv 1706.04599, use 15; there are few
labels here)."""

_LEAST_P = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log-loss, which is infinite there."""


def logistic(x: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Returns 1 / (1 + e^-x), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def is_held_out(*texts: bytes, share: float) -> bool:
    """Tells whether a caption, or a pair of them in either order, is kept from learning: `share` of all are.

    The texts alone decide, so that every run with the same share keeps the same ones.
    """
    digest = blake2b(b"\0".join(sorted(texts)), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def accuracy(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float:
    """Returns the share of labels that `p > 1/2` gets right."""
    return float(((p > 0.5) == label).mean())


def auc(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float | None:
    """Returns the probability that a positive is ranked above a negative, ties counted half; None without both."""
    positive = int(label.sum())
    negative = len(label) - positive
    if not positive or not negative:
        return None
    _, which, count = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[which]  # from 1; equal values share the mean of theirs
    return float((rank[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def log_loss(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float:
    """Returns the mean negative log-likelihood, in nats."""
    right = np.clip(np.where(label, p, 1 - p), _LEAST_P, 1.0)
    return float(-np.log(right).mean())


def calibration_error(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> float:
    """Returns the expected calibration error: sum over bins of share of samples * |mean of p - share of positives|.

    The bins are of equal width over p.
    """
    bins = np.minimum((p * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    apart = np.bincount(bins, weights=p - label, minlength=NUM_BINS)
    return float(np.abs(apart).sum() / len(p))


def label_figures(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> dict[str, float]:
    """Returns all figures of predicted probabilities by name; those that are not defined are left out."""
    if not len(label):
        return {}
    figures = {
        "accuracy": accuracy(p, label),
        "log_loss": log_loss(p, label),
        "calibration_error": calibration_error(p, label),
    }
    area = auc(p, label)
    return figures if area is None else figures | {"auc": area}


def pair_figures(p: Float[np.ndarray, " N"], label: Bool[np.ndarray, " N"]) -> dict[str, float]:
    """Returns the figures of predicted preferences. No AUC: which of two captions comes first means nothing."""
    return {name: value for name, value in label_figures(p, label).items() if name != "auc"}
