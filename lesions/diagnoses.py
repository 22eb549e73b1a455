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
    malignant: bool  # or in situ: what a clinician would not leave alone
    colour: str  # in every picture; Okabe and Ito's colour-blind safe palette


DIAGNOSES = (
    Diagnosis("akiec", "actinic keratosis / intraepithelial carcinoma", True, "#E69F00"),
    Diagnosis("bcc", "basal cell carcinoma", True, "#56B4E9"),
    Diagnosis("bkl", "benign keratosis-like lesion", False, "#009E73"),
    Diagnosis("df", "dermatofibroma", False, "#B8A800"),
    Diagnosis("mel", "melanoma", True, "#D55E00"),
    Diagnosis("nv", "melanocytic nevus", False, "#0072B2"),
    Diagnosis("vasc", "vascular lesion", False, "#CC79A7"),
)
CODES = tuple(diagnosis.code for diagnosis in DIAGNOSES)
ISIC_COLUMNS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")  # of its one-hot form


def labels_of(table: pd.DataFrame) -> Labels:
    """Turn the column `dx` into class indices: (n,) int64."""
    return np.array([CODES.index(code) for code in table["dx"]], dtype=np.int64)
