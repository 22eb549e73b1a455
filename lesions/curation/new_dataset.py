"""A new dataset: looks at a folder of photos and writes its description, before anything runs."""

import hashlib
import io
import os
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from lesions.common.artifacts import write_text
from lesions.common.errors import LesionsError
from lesions.common.names import safe_text
from lesions.common.params import Holdout, Params
from lesions.common.progress import progress
from lesions.common.threads import thread_pool
from lesions.dataset.description import (
    FOLDER,
    NOT_STATED,
    RESERVED,
    Description,
    Role,
    check_description,
    normalise,
)
from lesions.dataset.metadata import group_word, groups_of, join_groups
from lesions.dataset.photos import decode
from lesions.dataset.splits import SUBSETS, prove, split
from lesions.scoring.guards import MIN_CASES
from lesions.sources.files import PhotoFile
from lesions.sources.folders import Content, as_metadata, read_folder

UNKNOWN = ("unk", "unknown")  # labels that are no class
MANY_CLASSES = 50
FEW = 3  # groups of a class: with fewer, a subset lacks it
SHOWN = 5  # names in one line


@dataclass(frozen=True)
class PhotoCheck:
    """What the files of the photos are."""

    sizes: Counter[str]  # of each size in pixels, how many photos
    formats: Counter[str]
    unreadable: list[str]  # one line each
    equal: list[tuple[str, str]]  # pairs of image_ids whose files have the same bytes


@dataclass(frozen=True)
class Proposal:
    """What was found in a folder, and the description that follows from it."""

    folder: Path
    dataset: Description
    metadata: pd.DataFrame  # equal photos are of one group, as in the pipeline
    photos: PhotoCheck
    assumed: list[str]
    holdout: Holdout
    subsets: dict[str, pd.DataFrame] | None  # as the pipeline will split; None if it cannot
    problem: str  # why it cannot


def propose(folder: Path, params: Params, columns: Mapping[Role, str]) -> Proposal:
    """Read a folder, look at its photos and describe it.

    Args:
        folder: of photos, as `read_folder` reads it.
        columns: what its tables call some columns; others are recognised.
        params: for the shares of the split.

    Raises:
        LesionsError: it has no photos, or fewer than two classes.
    """
    content = read_folder(folder, columns)
    dataset, notes = _describe(folder, content)
    metadata = as_metadata(content, dataset)
    photos = check_photos({name: content.files[name] for name in metadata["image_id"]})
    metadata = join_groups(metadata, photos.equal)
    holdout: Holdout = "given" if "split" in metadata else "any-lesion"
    subsets, problem = None, ""
    try:
        subsets = split(
            metadata,
            dataset.classes,
            params.val_share,
            params.test_share,
            holdout,
            params.split_seed,
        )
    except LesionsError as error:
        problem = str(error)
    taken = ", ".join(f"{role}: {name}" for role, name in content.columns.items())
    assumed = [*content.notes, *([f"columns: {taken}"] if taken else []), *notes]
    return Proposal(folder, dataset, metadata, photos, assumed, holdout, subsets, problem)


def _describe(folder: Path, content: Content) -> tuple[Description, list[str]]:
    """Make the description of a folder's classes; and say what was decided."""
    notes = []
    labels: dict[str, list[str]] = {}  # spellings of each class
    for label in sorted(content.table["dx"].unique()):
        labels.setdefault(normalise(label), []).append(label)
    left_out = [label for key in UNKNOWN for label in labels.pop(key, [])]
    labels.pop("", None)
    if len(labels) < 2:
        raise LesionsError(
            f"{content.place}: has {len(labels)} class ({', '.join(labels) or 'none'}); two are "
            "needed to tell photos apart. Is another column the class? Write `columns: {label: "
            "NAME}` into a file in datasets/ (datasets/README.md)."
        )
    titles: dict[str, str] = {}
    for number, spellings in enumerate(labels.values(), start=1):
        titles[_code(spellings[0], number, titles)] = spellings[0]
        if len(spellings) > 1:
            notes.append(f"{' and '.join(spellings)} are one class")
    if left_out:
        notes.append(f"left_out: {', '.join(left_out)}")
    values = {
        "title": folder.resolve().name,
        "classes": list(titles),
        "titles": titles,
        "groups": {},
        "watched": None,
        "columns": dict(content.columns),
        "left_out": left_out,
    }
    return check_description(Path(content.place), values), notes


def _code(label: str, number: int, taken: dict[str, str]) -> str:
    """Name a class by letters, digits and _."""
    code = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:36] or f"class_{number}"
    if code in RESERVED or code in taken:
        code = f"{code}_{number}"
    return code


def check_photos(files: dict[str, PhotoFile]) -> PhotoCheck:
    """Decode every photo, and compare their bytes."""

    def look(item: tuple[str, PhotoFile]) -> tuple[str, str, str, bytes] | LesionsError:
        image_id, photo = item
        try:
            data = photo.read()
            decode(data, 32, photo.place)
        except LesionsError as error:
            return error
        with Image.open(io.BytesIO(data)) as image:
            size, kind = f"{image.width}×{image.height}", str(image.format)
        return image_id, size, kind, hashlib.blake2b(data, digest_size=16).digest()

    sizes, formats = Counter[str](), Counter[str]()
    unreadable: list[str] = []
    equal: list[tuple[str, str]] = []
    first: dict[bytes, str] = {}
    with thread_pool(os.cpu_count()) as pool, progress(len(files), "photos", "look") as bar:
        for found in pool.map(look, sorted(files.items())):
            bar.update()
            if isinstance(found, LesionsError):
                unreadable.append(str(found))
                continue
            image_id, size, kind, digest = found
            sizes[size] += 1
            formats[kind] += 1
            if (earlier := first.setdefault(digest, image_id)) != image_id:
                equal.append((earlier, image_id))
    return PhotoCheck(sizes, formats, unreadable, equal)


def report(proposal: Proposal, params: Params, has_groups: bool = False) -> str:
    """Say what was found, what was assumed and what to check: one line each.

    Args:
        proposal: from `propose`.
        params: for the shares of the split.
        has_groups: the description of the folder, which exists already, names `groups`.
    """
    metadata, dataset, photos = proposal.metadata, proposal.dataset, proposal.photos
    groups, word = groups_of(metadata), group_word(metadata)
    of_groups = "" if word == "photo" else f" of {groups.nunique():,} {word}s"
    table = metadata["dx"].value_counts().reindex(list(dataset.classes)).to_frame("photos")
    if word != "photo":
        table[f"{word}s"] = groups.groupby(metadata["dx"]).nunique()
    lines = [f"{proposal.folder}: {len(metadata):,} photos{of_groups} in {len(table)} classes"]
    if proposal.subsets is not None:
        for name in SUBSETS:
            counts = proposal.subsets[name]["dx"].value_counts()
            table[name] = counts.reindex(table.index).fillna(0).astype(int)
    lines += [table.to_string(), ""]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in photos.formats.most_common(SHOWN))
    sizes = ", ".join(f"{count:,} of {size}" for size, count in photos.sizes.most_common(3))
    more = f", and {len(photos.sizes) - 3} other sizes" if len(photos.sizes) > 3 else ""
    lines.append(f"files:   {kinds}; {sizes}{more}")
    lines += [f"assumed: {note}" for note in proposal.assumed]
    if proposal.subsets is not None:
        lines.append(
            "split:   " + prove(metadata, proposal.subsets, dataset.classes, params.split_seed)
        )
    to_check = _to_check(proposal, table, word)
    if not has_groups:
        to_check.append(
            "`groups` is empty: name the classes that must be found, and thresholds are chosen for "
            "them"
        )
    lines += [f"check:   {text}" for text in to_check]
    wrap = partial(
        textwrap.fill,
        width=100,
        subsequent_indent=" " * 9,
        break_long_words=False,  # paths
        break_on_hyphens=False,
    )
    return safe_text("\n".join(line if "\n" in line else wrap(line) for line in lines))


def _to_check(proposal: Proposal, table: pd.DataFrame, word: str) -> list[str]:
    """List what may be wrong, and what the results will lack."""
    photos = proposal.photos
    found = [f"unreadable: {line}" for line in photos.unreadable[:SHOWN]]
    if len(photos.unreadable) > SHOWN:
        found.append(f"unreadable: {len(photos.unreadable) - SHOWN} more")
    if photos.unreadable:
        found.append("the run stops at an unreadable photo: mend it or take it out of the folder")
    if photos.equal:
        first, second = photos.equal[0]
        found.append(
            f"{len(photos.equal)} photos have the same bytes as another, {first} and {second} for "
            "one; they count as one group"
        )
    if word == "photo":
        found.append(
            "no patients or lesions are named: if one has several photos, the results are too "
            "good. Add a table with the columns image_id and patient_id or lesion_id"
        )
    if len(table) > MANY_CLASSES:
        found.append(f"{len(table)} classes: is the column of the class the right one?")
    if rare := [str(code) for code, count in table[f"{word}s"].items() if count < FEW]:
        found.append(f"fewer than {FEW} {word}s of {_some(rare)}: validation or test lacks them")
    if proposal.subsets is not None and (
        few := [str(code) for code, count in table["test"].items() if 0 < count < MIN_CASES]
    ):
        found.append(
            f"fewer than {MIN_CASES} test photos of {_some(few)}: their intervals are wide"
        )
    if proposal.problem:
        found.append(proposal.problem)
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def path_of(folder: Path, name: str | None) -> Path:
    """Choose the file of the description.

    Raises:
        LesionsError: the name is not allowed.
    """
    chosen = name or re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_") or "mine"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", chosen):
        raise LesionsError(
            f"--name {chosen}: lower-case letters, digits, _ and - are allowed, at most 41."
        )
    return FOLDER / f"{chosen}.yaml"


class _Dumper(yaml.SafeDumper):
    """Quotes all but plain words: YAML 1.2 reads 1e5 as a number, YAML 1.1 as text."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if re.fullmatch(r"[A-Za-z_][\w .,/-]*", text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)


def write_description(path: Path, proposal: Proposal) -> None:
    """Write the description, with comments on what to fill in."""
    dataset = proposal.dataset
    groups = f"{{must_find: [{dataset.classes[0]}]}}"
    dump = lambda values: yaml.dump(  # noqa: E731
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    text = f"""# Written by `lesions new`; datasets/README.md explains every key.
{dump({"title": dataset.title})}\
photo: photo
# For model cards and the report; say what is known.
origin: {NOT_STATED}
licence: {NOT_STATED}
citation: {NOT_STATED}
limits: {NOT_STATED}

# The order of the networks' outputs.
{dump({"classes": list(dataset.classes)})}\
{dump({"titles": dataset.titles})}
# What must be found: thresholds, AUC and net benefit of each group. For example
# groups: {groups}
groups: {{}}
# The group whose sensitivity is a key metric; null for none.
watched: null

# What the tables call their columns.
{dump({"columns": dict(dataset.columns)})}\
{dump({"left_out": list(dataset.left_out)})}"""
    write_text(path, text)


def command(path: Path, proposal: Proposal, more: Mapping[str, object]) -> str:
    """Write the command that runs the pipeline on the folder."""
    source = str(proposal.folder.resolve())
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", source):  # what DVC reads without quotes
        source = f'"{source}"'
    changes = [f"dataset={path}", f"source={source}", f"holdout={proposal.holdout}"]
    changes += [f"{key}={value}" for key, value in more.items()]
    return "dvc exp run " + " ".join(f"-S {shlex.quote(change)}" for change in changes)
