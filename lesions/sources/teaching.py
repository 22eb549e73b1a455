"""The teaching sample: synthetic photos that are hard, for reasons that are known.

It has what the course in docs/course is about:

- imbalance: 56 % of the photos are nevi;
- half of the lesions have two or three photos, and a lesion's photos are alike: they share its
  colours, which differ from lesion to lesion;
- atypical lesions: of a look that several diagnoses have in common, so that nothing in the pixels
  tells which it is. Only who remembers the lesion knows. Here, other than in HAM10000, `histo` in
  the column `dx_type` marks exactly the atypical lesions.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lesions.common.progress import progress
from lesions.sources.sample import (
    COLUMNS,
    QUALITY,
    SITES,
    STYLES,
    Field,
    Lesion,
    Rng,
    Style,
    mix,
    render,
    step,
)

SHRINK = 3  # photos of 200×150: enough for the course, and nine times as fast to render
# Shares of the photos.
SHARES = {
    "akiec": 0.06,
    "bcc": 0.07,
    "bkl": 0.11,
    "df": 0.03,
    "mel": 0.14,
    "nv": 0.56,
    "vasc": 0.03,
}
# Shares of a diagnosis' lesions that are atypical, by the look that they have in common.
ATYPICAL = {
    "pigmented": {"mel": 0.5, "nv": 0.25, "bkl": 0.3},
    "pink": {"akiec": 0.5, "bcc": 0.4},
}
VIEWS = (0.5, 0.25, 0.25)  # shares of the lesions with one, two and three photos
TINT = 0.07  # standard deviation of a lesion's colours, as a share of them


def generate_photos(seed: int, size: int, images: Path) -> pd.DataFrame:
    """Write `<image_id>.jpg` files to an existing folder: the same seed gives the same bytes.

    Args:
        seed: of all random values.
        size: about how many photos.
        images: the folder.

    Returns:
        The metadata, with sample.COLUMNS, which are HAM10000's.
    """
    table = _metadata(seed, size)
    with progress(len(table), "photos", "generate the teaching sample") as bar:
        for photo in table.to_dict("records"):
            picture = render_photo(photo["look"], seed, photo["lesion"], photo["view"])
            picture.save(images / f"{photo['image_id']}.jpg", quality=QUALITY)
            bar.update()
    return table[list(COLUMNS)]


def render_photo(look: str, seed: int, lesion: int, view: int) -> Image.Image:
    """Render one photo, 200×150 RGB.

    Args:
        look: one of LOOKS.
        seed, lesion: decide the lesion, its skin, and the colours of both.
        view: decides framing, light and hairs.
    """
    body = np.random.default_rng([seed, 5, lesion])
    red, green, blue = np.exp(body.normal(0, TINT, 3))
    camera = np.random.default_rng([seed, 6, lesion, view])
    return render(LOOKS[look], body, camera, (red, green, blue), SHRINK)


def counts(size: int) -> dict[str, int]:
    """Count the photos of each diagnosis in a sample of about `size` photos."""
    return {dx: sum(n * k for n, k in enumerate(_views(size * SHARES[dx]), 1)) for dx in SHARES}


def _views(photos: float) -> list[int]:
    """Count the lesions with one, two and three photos of a diagnosis; some of each."""
    lesions = photos / sum(share * views for views, share in enumerate(VIEWS, 1))
    return [max(1, round(lesions * share)) for share in VIEWS]


def _metadata(seed: int, size: int) -> pd.DataFrame:
    """Make one row per photo, numbered in an order that does not reveal the diagnosis."""
    rng = np.random.default_rng([seed, 4])
    kinds = []
    for dx in SHARES:
        views = np.repeat((1, 2, 3), _views(size * SHARES[dx]))
        kinds += [
            (dx, look, int(count))
            for look, count in zip(_looks(dx, len(views), rng), views, strict=True)
        ]
    rows = []
    for number, index in enumerate(rng.permutation(len(kinds)), start=1):
        dx, look, views_of_lesion = kinds[index]
        lesion = {
            "lesion_id": f"TEACHING_{number:05}",
            "dx": dx,
            "dx_type": "consensus" if look == dx else "histo",
            "age": f"{5 * rng.integers(4, 18):.1f}",
            "sex": rng.choice(("male", "female")),
            "localization": rng.choice(SITES),
            "lesion": number,
            "look": look,
        }
        rows += [{**lesion, "view": view} for view in range(views_of_lesion)]
    table = pd.DataFrame(rows)
    return table.assign(image_id=[f"TEACHING_{number:07}" for number in range(1, len(table) + 1)])


def _looks(dx: str, lesions: int, rng: Rng) -> list[str]:
    """Choose the look of each lesion of a diagnosis: its own, or one that others have too."""
    for look, shares in ATYPICAL.items():
        if dx in shares:
            atypical = rng.permutation(lesions) < round(lesions * shares[dx])
            return [look if one else dx for one in atypical]
    return [dx] * lesions


def _pigmented(lesion: Lesion) -> Field:
    """Brown with a darker part, some network and a veil: a melanoma, nevus or keratosis."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.48, 0.31, 0.20)),
        (0.22, 0.14, 0.10),
        step(lesion.noise(2.0) - 0.50, 0.35),
    )
    colour = mix(colour, (0.26, 0.15, 0.08), 0.6 * lesion.network(26) * lesion.noise(1.5))
    return mix(colour, (0.47, 0.50, 0.58), 0.5 * step(lesion.noise(1.8) - 0.74, 0.3))


def _pink(lesion: Lesion) -> Field:
    """Pink and red with some scale and a few vessels: an actinic keratosis or a carcinoma."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.90, 0.56, 0.53)), (0.80, 0.38, 0.36), lesion.noise(2.5)
    )
    colour = mix(colour, (0.97, 0.90, 0.80), 0.7 * step(lesion.noise(3.0) - 0.66, 0.10))
    return mix(colour, (0.78, 0.14, 0.18), 0.8 * lesion.vessels(2))


# What lesions look like: as their diagnosis, or as several.
LOOKS = STYLES | {
    "pigmented": Style(_pigmented, 0.16, 0.20, 0.93),
    "pink": Style(_pink, 0.13, 0.40, 0.88),
}
