"""The seven diagnoses of HAM10000: the one ordered table that gives the class order."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Labels = npt.NDArray[np.int64]  # (n,) indices into DIAGNOSES


class Diagnosis(NamedTuple):
    """One diagnosis, which is one class."""

    code: str  # as in the metadata's column `dx`; upper case in ISIC's files
    meaning: str
    malignant: bool
    colour: str  # in every picture; Okabe and Ito's palette, which colour-blind people can read


DIAGNOSES = (
    Diagnosis("akiec", "actinic keratosis / intraepithelial carcinoma", True, "#e69f00"),
    Diagnosis("bcc", "basal cell carcinoma", True, "#d55e00"),
    Diagnosis("bkl", "benign keratosis-like lesion", False, "#56b4e9"),
    Diagnosis("df", "dermatofibroma", False, "#009e73"),
    Diagnosis("mel", "melanoma", True, "#000000"),
    Diagnosis("nv", "melanocytic nevus", False, "#0072b2"),
    Diagnosis("vasc", "vascular lesion", False, "#cc79a7"),
)
CODES = tuple(diagnosis.code for diagnosis in DIAGNOSES)
MALIGNANT = tuple(diagnosis.code for diagnosis in DIAGNOSES if diagnosis.malignant)
ISIC_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")  # of its one-hot tables


def labels_of(table: pd.DataFrame) -> Labels:
    """Turn the column `dx` into class indices: (n,) int64.

    >>> labels_of(pd.DataFrame({"dx": ["mel", "akiec"]}))
    array([4, 0])
    """
    return np.array([CODES.index(code) for code in table["dx"]], dtype=np.int64)
