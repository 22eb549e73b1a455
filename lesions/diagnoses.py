"""The seven diagnoses of HAM10000: the one ordered table that gives the class order."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Labels = npt.NDArray[np.int64]  # (n,) indices into DIAGNOSES


class Diagnosis(NamedTuple):
    """What is known of one diagnosis."""

    code: str  # as in the metadata's column `dx`; upper case in ISIC's files
    meaning: str


DIAGNOSES = (
    Diagnosis("akiec", "actinic keratosis / intraepithelial carcinoma"),
    Diagnosis("bcc", "basal cell carcinoma"),
    Diagnosis("bkl", "benign keratosis-like lesion"),
    Diagnosis("df", "dermatofibroma"),
    Diagnosis("mel", "melanoma"),
    Diagnosis("nv", "melanocytic nevus"),
    Diagnosis("vasc", "vascular lesion"),
)
CODES = tuple(diagnosis.code for diagnosis in DIAGNOSES)
ISIC_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")  # of its one-hot form


def labels_of(table: pd.DataFrame) -> Labels:
    """Turn the column `dx` into class indices: (n,) int64."""
    return np.array([CODES.index(code) for code in table["dx"]], dtype=np.int64)
