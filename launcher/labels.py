"""Read class labels, and say how many predictions hit them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from launcher.errors import JobError

ROWS_AT_ONCE = 4096  # of predictions, which may be larger than memory


def read_labels(name: str) -> np.ndarray:
    """Return the labels in ``file.npy`` or ``file.npz:key``.

    Raises:
        JobError: there is no such file or key, or it holds no integers.
    """
    file, _, key = name.rpartition(":") if ".npz:" in name else (name, "", "")
    try:
        loaded = np.load(file, allow_pickle=False)
        labels = loaded if isinstance(loaded, np.ndarray) else loaded[key]
    except KeyError as error:
        what = f"no array {key!r}" if key else "it does not say which array"
        raise _unusable(name, what, _keys(file, loaded.files)) from error
    except OSError as error:
        raise _unusable(name, error.strerror or str(error), "check the path") from error
    except (ValueError, EOFError, RecursionError, MemoryError, zipfile.BadZipFile) as error:
        reason = str(error) or type(error).__name__
        raise _unusable(name, reason, "write it with numpy.save or numpy.savez") from error
    if not np.issubdtype(labels.dtype, np.integer):
        raise _unusable(name, f"dtype {labels.dtype}", "labels are class numbers, integers from 0")
    if labels.size == 0:
        raise _unusable(name, "it is empty", "give one label for each prediction")
    return np.asarray(labels)


def accuracy(labels: np.ndarray, predictions: Path, name: str) -> float:
    """Return the share of predictions, argmax over the last dim, that equal their label.

    Raises:
        JobError: there is not one label for each prediction, a label is no class of the network,
            or scores are NaN, of which none is the highest.
    """
    scores = np.load(predictions, mmap_mode="r")
    if scores.shape[:-1] != labels.shape:
        what = f"labels of shape {labels.shape} for predictions of shape {scores.shape}"
        raise _unusable(name, what, "give one label for each prediction")
    classes = scores.shape[-1]
    scores, labels = scores.reshape(-1, classes), labels.reshape(-1)
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        what = f"labels from {least} to {most} for {classes} classes"
        raise _unusable(name, what, f"labels are class numbers from 0 to {classes - 1}")
    hits = 0
    for start in range(0, len(scores), ROWS_AT_ONCE):
        part = np.asarray(scores[start : start + ROWS_AT_ONCE])
        if part.dtype.kind == "f" and np.isnan(part).any():
            row = start + int(np.isnan(part).any(axis=1).argmax())
            what, fix = f"prediction {row} is NaN", "look at the input and the weights"
            raise JobError.about("predictions", what, fix)
        hits += int((part.argmax(axis=-1) == labels[start : start + ROWS_AT_ONCE]).sum())
    return hits / labels.size


def _unusable(name: str, what: str, fix: str) -> JobError:
    return JobError.about("labels", f"{name}: {what}", fix)


def _keys(file: str, keys: list[str]) -> str:
    return "try " + " or ".join(f"{file}:{key}" for key in keys)
