"""The synthetic sample: small, like HAM10000, so that the whole pipeline runs without a download.

Each of the seven kinds of picture has the colour, border and structure that its diagnosis is known
for, on skin of several tones, under hairs, uneven light and a dermatoscope's dark corners. The
pictures teach nothing about real skin. `teaching.py` makes a larger sample of the same pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from lesions.common.progress import progress

Field = npt.NDArray[np.float64]  # (height, width), or (height, width, 3) for colours in [0, 1]
Colour = tuple[float, float, float]
Rng = np.random.Generator

WIDTH, HEIGHT = 600, 450  # as HAM10000's photos
QUALITY = 92  # of JPEG
# How many lesions of a diagnosis are photographed once, twice, three times: 99 photos in all.
LESIONS = {
    "akiec": (9, 2, 0),
    "bcc": (10, 2, 0),
    "bkl": (10, 1, 1),
    "df": (8, 1, 0),
    "mel": (10, 3, 0),
    "nv": (15, 1, 1),
    "vasc": (9, 1, 0),
}
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
SKIN = ((0.93, 0.79, 0.72), (0.90, 0.73, 0.64), (0.86, 0.68, 0.57), (0.95, 0.84, 0.79))
SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest")
CONFIRMED_BY = {"nv": ("follow_up", "histo", "consensus"), "vasc": ("consensus", "histo")}


def generate_photos(
    seed: int, images: Path, lesions: dict[str, tuple[int, int, int]] | None = None
) -> pd.DataFrame:
    """Write `<image_id>.jpg` files to an existing folder: the same seed gives the same bytes.

    Args:
        seed: of all random values.
        images: the folder.
        lesions: like LESIONS, which it replaces.

    Returns:
        The metadata, with COLUMNS, which are HAM10000's.
    """
    table = _metadata(seed, lesions or LESIONS)
    with progress(len(table), "photos", "generate the sample") as bar:
        for photo in table.to_dict("records"):
            picture = render_photo(photo["dx"], seed, photo["lesion"], photo["view"])
            picture.save(images / f"{photo['image_id']}.jpg", quality=QUALITY)
            bar.update()
    return table[list(COLUMNS)]


def _metadata(seed: int, lesions: dict[str, tuple[int, int, int]]) -> pd.DataFrame:
    """Make one row per photo, numbered in an order that does not reveal the diagnosis."""
    rng = np.random.default_rng([seed, 1])
    kinds = [
        (dx, views)
        for dx in sorted(LESIONS)
        for views, count in enumerate(lesions[dx], start=1)
        for _ in range(count)
    ]
    rows = []
    for number, index in enumerate(rng.permutation(len(kinds)), start=1):
        dx, views = kinds[index]
        older = 45 if dx in ("nv", "vasc", "df") else 65
        person = {
            "lesion_id": f"SYNTHETIC_{number:05}",
            "dx": dx,
            "dx_type": rng.choice(CONFIRMED_BY.get(dx, ("histo", "histo", "consensus"))),
            "age": "" if rng.random() < 0.03 else f"{5 * round(rng.normal(older, 12) / 5):.1f}",
            "sex": rng.choice(("male", "female")),
            "localization": rng.choice(SITES),
            "lesion": number,
        }
        rows += [{**person, "view": view} for view in range(views)]
    table = pd.DataFrame(rows)
    return table.assign(image_id=[f"SYNTHETIC_{number:07}" for number in range(1, len(table) + 1)])


@dataclass
class Lesion:
    """A lesion in a photo: all that its style needs to paint it."""

    rng: Rng  # of the lesion: the same in all its photos
    shrink: int
    u: Field  # coordinates in the lesion's own frame; its radius is about 1
    v: Field
    radius: float  # in pixels of a photo of WIDTH × HEIGHT, as are all lengths here
    depth: Field  # 0 at the centre, 1 at the border
    to_pixels: Callable[[Field, Field], list[tuple[float, float]]]  # from (u, v)

    def noise(self, detail: float) -> Field:
        """Smooth random values in [0, 1], with about `detail` bumps per radius."""
        return _noise(self.rng, self.u * detail, self.v * detail)

    def spots(self, count: int, size: tuple[float, float], reach: float = 0.8) -> Field:
        """Soft round spots, strongest 1: (height, width)."""
        field = np.zeros_like(self.u)
        for _ in range(count):
            angle, far = self.rng.uniform(0, 2 * np.pi), reach * np.sqrt(self.rng.random())
            radius = self.rng.uniform(*size)
            cu, cv = far * np.cos(angle), far * np.sin(angle)
            near = self.window(cu, cv, 1.6 * radius)
            distance = np.hypot(self.u[near] - cu, self.v[near] - cv)
            field[near] = np.maximum(field[near], step(1.3 - distance / radius, 0.6))
        return field

    def window(self, cu: float, cv: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns of the pixels within `reach` of a point, and a few more."""
        [(x, y)] = self.to_pixels(np.array([cu]), np.array([cv]))
        far = int(reach * self.radius) + 1

        def near(middle: int) -> slice:
            start, stop = max(0, middle - far), max(0, middle + far + 1)
            return slice(start // self.shrink, -(-stop // self.shrink))

        return near(int(y)), near(int(x))

    def network(self, mesh: float) -> Field:
        """A honeycomb of lines, like a pigment network: 1 on a line."""
        bend = 1.6 * self.noise(2.5)
        waves = [
            np.cos(mesh * (self.u * np.cos(turn) + self.v * np.sin(turn)) + bend)
            for turn in (0, np.pi / 3, 2 * np.pi / 3)
        ]
        return step(0.35 - np.abs(sum(waves) + 0.6) / 2.2, 0.3)

    def vessels(self, count: int) -> Field:
        """Branching vessels, thinner with each branch: 1 on a vessel."""
        lines = []
        for _ in range(count):
            angle = self.rng.uniform(0, 2 * np.pi)
            start = 0.75 * np.array([np.cos(angle), np.sin(angle)])
            lines += _branch(self.rng, start, angle + np.pi, 0.9, 4)
        strokes = [(self.to_pixels(*line.T), width) for line, width in lines]
        return _strokes(strokes, self.shrink)


@dataclass(frozen=True)
class Style:
    """What a kind of lesion looks like."""

    paint: Callable[[Lesion], Field]
    wobble: float  # of the outline: 0 is a circle
    softness: float  # width of the border, in radii
    cover: float  # 1 hides the skin


def render_photo(dx: str, seed: int, lesion: int, view: int) -> Image.Image:
    """Render one photo, 600×450 RGB.

    Args:
        dx: the diagnosis, which decides the style.
        seed, lesion: decide the lesion and its skin.
        view: decides framing, light and hairs.
    """
    body = np.random.default_rng([seed, 2, lesion])
    return render(STYLES[dx], body, np.random.default_rng([seed, 3, lesion, view]))


def render(
    style: Style, body: Rng, camera: Rng, tint: Colour = (1, 1, 1), shrink: int = 1
) -> Image.Image:
    """Render one photo in a style.

    Args:
        style: what the lesion looks like.
        body: draws what is the same in all photos of the lesion.
        camera: draws what differs from photo to photo.
        tint: multiplies the colours of the lesion and of its skin.
        shrink: the photo has WIDTH / shrink × HEIGHT / shrink pixels; a divisor of both.
    """
    pixels = np.mgrid[: HEIGHT // shrink, : WIDTH // shrink]
    y, x = pixels * float(shrink) + (shrink - 1) / 2
    # Framing: the lesion's position, size and angle.
    radius = body.uniform(105, 150) * camera.uniform(0.88, 1.12)
    middle = np.array([WIDTH / 2, HEIGHT / 2]) + camera.normal(0, 16, 2)
    turn = camera.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(turn) / radius, np.sin(turn) / radius
    u = (x - middle[0]) * cosine + (y - middle[1]) * sine
    v = (y - middle[1]) * cosine - (x - middle[0]) * sine

    def to_pixels(pu: Field, pv: Field) -> list[tuple[float, float]]:
        px = middle[0] + (pu * cosine - pv * sine) * radius**2
        py = middle[1] + (pu * sine + pv * cosine) * radius**2
        return list(zip(px.tolist(), py.tolist(), strict=True))

    picture = np.ones((*u.shape, 3)) * SKIN[body.integers(len(SKIN))]
    picture *= 1 + 0.06 * (_noise(body, u * 1.2, v * 1.2) - 0.5)[..., None]
    picture *= 1 + 0.10 * (_noise(body, u * 16, v * 16) - 0.5)[..., None]
    border = _border(body, u, v, style.wobble)
    frame = Lesion(body, shrink, u, v, radius, np.hypot(u, v) / border, to_pixels)
    colour = style.paint(frame)
    cover = style.cover * step(1 - frame.depth, style.softness)
    picture = mix(picture, colour, cover) * tint
    hairs = _strokes([_hair(camera) for _ in range(camera.integers(0, 7))], shrink)
    picture = mix(picture, (0.20, 0.13, 0.09), 0.75 * hairs)
    light = camera.normal(0, 0.05, 2)
    gain = 1 + light[0] * (x / WIDTH - 0.5) * 2 + light[1] * (y / HEIGHT - 0.5) * 2
    picture *= camera.uniform(0.93, 1.06) * gain[..., None] * camera.normal(1, 0.012, 3)
    if camera.random() < 0.4:
        corner = np.hypot(x - WIDTH / 2, y - HEIGHT / 2) / camera.uniform(290, 330)
        picture *= (0.08 + 0.92 * step(1 - corner, 0.08))[..., None]
    picture += camera.normal(0, 0.008, picture.shape)
    return Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))


def step(field: Field, width: float) -> Field:
    """Rise smoothly from 0 to 1 while `field` goes from -width/2 to width/2."""
    t = (field / width + 0.5).clip(0, 1)
    result: Field = t * t * (3 - 2 * t)
    return result


def mix(under: Field, colour: Field | Colour, share: Field) -> Field:
    """Blend a colour over a picture, by `share` of it."""
    return under + (np.asarray(colour) - under) * share[..., None]


def _noise(rng: Rng, x: Field, y: Field) -> Field:
    """Value noise: random values on a lattice of whole numbers, smoothly interpolated."""
    lattice = rng.random((64, 64))
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = step(x - column - 0.5, 1), step(y - row - 0.5, 1)
    column, row = column % 64, row % 64
    upper = lattice[row, column] * (1 - right) + lattice[row, (column + 1) % 64] * right
    row = (row + 1) % 64
    lower = lattice[row, column] * (1 - right) + lattice[row, (column + 1) % 64] * right
    result: Field = upper * (1 - down) + lower * down
    return result


def _border(rng: Rng, u: Field, v: Field, wobble: float) -> Field:
    """Radius of the outline in the direction of each pixel."""
    angle = np.arctan2(v, u)
    waves = [
        rng.normal(0, wobble / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        for k in range(2, 9)
    ]
    return 1 + np.clip(sum(waves), -0.5, 0.5)


def _branch(
    rng: Rng, start: Field, angle: float, length: float, width: float
) -> list[tuple[Field, float]]:
    """Trace a vessel from a point, and the thinner ones that branch off."""
    bends = np.cumsum(rng.normal(0, 0.25, 9)) + angle
    steps = np.stack([np.cos(bends), np.sin(bends)], axis=1) * length / 9
    line = np.vstack([start, start + np.cumsum(steps, axis=0)])
    lines = [(line, width)]
    if width > 1.5:
        for fork in (3, 5, 7):
            lines += _branch(
                rng, line[fork], bends[fork] + rng.choice((-0.7, 0.7)), length * 0.5, width * 0.6
            )
    return lines


def _strokes(lines: list[tuple[list[tuple[float, float]], float]], shrink: int) -> Field:
    """Draw lines of some width in pixels, smooth-edged: 1 on a line."""
    mask = Image.new("L", (WIDTH * 2, HEIGHT * 2))
    pen = ImageDraw.Draw(mask)
    for points, width in lines:
        pen.line(
            [(x * 2, y * 2) for x, y in points], fill=255, width=round(width * 2), joint="curve"
        )
    size = WIDTH // shrink, HEIGHT // shrink
    return np.asarray(mask.resize(size, Image.Resampling.BOX)) / 255


def _hair(rng: Rng) -> tuple[list[tuple[float, float]], float]:
    """Place one hair: points of a bent line, and its width in pixels."""
    ends = rng.uniform((-60, -60), (WIDTH + 60, HEIGHT + 60), (3, 2))
    t = np.linspace(0, rng.uniform(0.6, 1), 40)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    points = [(float(px), float(py)) for px, py in curve]
    return points, float(rng.uniform(1.2, 2.4))


def _akiec(lesion: Lesion) -> Field:
    """Red, rough, with pale dots and yellow-white scale."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.86, 0.42, 0.36)), (0.74, 0.28, 0.25), lesion.noise(3)
    )
    colour = mix(colour, (0.95, 0.72, 0.62), 0.8 * lesion.spots(60, (0.03, 0.05), 1.0))
    return mix(colour, (0.97, 0.92, 0.78), 0.95 * step(lesion.noise(3.5) - 0.62, 0.10))


def _bcc(lesion: Lesion) -> Field:
    """Pearly pink, blue-grey nests, branching vessels."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.93, 0.68, 0.69)), (0.97, 0.83, 0.84), lesion.noise(2)
    )
    colour = mix(colour, (0.36, 0.40, 0.58), 0.9 * lesion.spots(11, (0.09, 0.22)))
    return mix(colour, (0.78, 0.10, 0.16), 0.9 * lesion.vessels(5))


def _bkl(lesion: Lesion) -> Field:
    """Ochre, waxy, with a sharp border, pale cysts and dark plugs."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.76, 0.58, 0.30)), (0.60, 0.43, 0.20), lesion.noise(4)
    )
    colour = mix(colour, (0.99, 0.95, 0.80), lesion.spots(16, (0.04, 0.07)))
    return mix(colour, (0.28, 0.17, 0.08), 0.9 * lesion.spots(14, (0.03, 0.06)))


def _df(lesion: Lesion) -> Field:
    """A white scar in a ring of fine, light brown network."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.74, 0.54, 0.44)), (0.56, 0.37, 0.28), lesion.network(34)
    )
    return mix(colour, (0.96, 0.90, 0.87), step(0.55 - lesion.depth + 0.2 * lesion.noise(3), 0.3))


def _mel(lesion: Lesion) -> Field:
    """Near black, ragged and of several colours, with a blue-white veil."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.30, 0.18, 0.14)),
        (0.07, 0.05, 0.06),
        step(lesion.noise(2.2) - 0.42, 0.25),
    )
    colour = mix(colour, (0.55, 0.20, 0.16), 0.7 * step(lesion.noise(2) - 0.66, 0.15))
    return mix(colour, (0.45, 0.52, 0.66), 0.75 * step(lesion.noise(1.6) - 0.74, 0.3))


def _nv(lesion: Lesion) -> Field:
    """Even brown and round, with a regular network."""
    colour = mix(
        np.full((*lesion.u.shape, 3), (0.60, 0.39, 0.25)),
        (0.45, 0.27, 0.16),
        step(0.6 - lesion.depth, 0.9),
    )
    return mix(colour, (0.33, 0.19, 0.11), 0.75 * lesion.network(22))


def _vasc(lesion: Lesion) -> Field:
    """Red and purple lagoons, pale walls between them."""
    colour = np.full((*lesion.u.shape, 3), (0.80, 0.42, 0.46))
    colour = mix(colour, (0.66, 0.05, 0.12), lesion.spots(26, (0.14, 0.26), 0.9))
    return mix(colour, (0.36, 0.05, 0.24), 0.9 * lesion.spots(9, (0.12, 0.22), 0.7))


STYLES = {
    "akiec": Style(_akiec, 0.14, 0.50, 0.90),
    "bcc": Style(_bcc, 0.12, 0.30, 0.85),
    "bkl": Style(_bkl, 0.10, 0.06, 0.95),
    "df": Style(_df, 0.05, 0.45, 0.85),
    "mel": Style(_mel, 0.26, 0.12, 0.97),
    "nv": Style(_nv, 0.05, 0.22, 0.95),
    "vasc": Style(_vasc, 0.10, 0.14, 0.95),
}
