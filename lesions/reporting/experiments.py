"""The table of experiments: what each one changed, and how good it is on validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.common.programs import run_git
from lesions.common.types import Floats
from lesions.common.yaml_files import parse_yaml
from lesions.dataset.metadata import groups_of, read_table
from lesions.scoring.guards import enough_groups
from lesions.scoring.intervals import bootstrap_weights, percentile_interval
from lesions.scoring.metrics import confusion_matrices, weighted_f1

# Experiments that differ in these have other validation photos: their metrics do not compare.
DATA = (
    "dataset",
    "source",
    "sample_seed",
    "sample_size",
    "split_seed",
    "val_share",
    "test_share",
    "same_lesion",
    "leave_out",
    "holdout",
)
METRIC = "weighted_f1"
IDS = ("image_id", "lesion_id", "patient_id", "actual")  # the other columns: classes
WIDTH = 50  # characters of the column of changes


def list_experiments(models: Mapping[str, str]) -> str:
    """Read all experiments of this repository, and compare them.

    Args:
        models: the networks to show, name to title.

    Raises:
        LesionsError: DVC cannot list them.
    """
    import dvc.api

    try:
        rows = dvc.api.exp_show()
    except Exception as error:  # DVC's errors have many kinds
        raise LesionsError(f"dvc exp show: {error}") from None
    locks = {row["rev"]: read_lock(row["rev"]) for row in rows}
    validations = {
        revision: {model: read_validation(lock, model) for model in models}
        for revision, lock in locks.items()
    }
    return compare_experiments(rows, models, locks, validations)


def read_lock(revision: str) -> dict[str, Any]:
    """Read dvc.lock of a revision, or of the workspace; empty if it has none."""
    if revision == "workspace":
        text = layout.LOCK.read_text(encoding="utf-8") if layout.LOCK.exists() else ""
    else:
        try:
            text = run_git("show", f"{revision}:./{layout.LOCK}")
        except LesionsError:  # that revision has none
            text = ""
    return parse_yaml(text) or {}


def read_validation(lock: Mapping[str, Any], model: str) -> pd.DataFrame | None:
    """Read the predictions of the validation photos that dvc.lock names from DVC's local cache.

    Returns:
        The table that training has written; None if it is not in the cache.
    """
    from dvc.repo import Repo

    outs = lock.get("stages", {}).get(f"train-{model}", {}).get("outs", [])
    wanted = layout.validation(model).as_posix()
    digest = next((out.get("md5") for out in outs if out["path"] == wanted), None)
    if digest is None:
        return None
    with Repo() as repo:
        path = Path(repo.cache.local.oid_to_path(digest))
    return read_table(path, "image_id", "actual") if path.exists() else None


def compare_with(table: pd.DataFrame | None, reference: pd.DataFrame | None) -> str:
    """Say how much the weighted F1 differs from that of a reference, with a paired 95 % interval.

    Args:
        table, reference: from `read_validation`.

    Returns:
        Empty if one is not known, they are one, their photos differ, or these are too few.
    """
    if table is None or reference is None or table.equals(reference):
        return ""
    classes = [name for name in table if name not in IDS]
    groups = groups_of(table).to_numpy(dtype=str)
    if not (table["image_id"].equals(reference["image_id"]) and enough_groups(groups)):
        return ""
    labels = np.array([classes.index(code) for code in table["actual"]])

    def scores(one: pd.DataFrame, weights: Floats) -> Floats:
        predicted = one[classes].to_numpy(dtype=np.float64).argmax(axis=1)
        return weighted_f1(confusion_matrices(predicted, labels, weights, len(classes)))

    def difference(weights: Floats) -> Floats:
        return scores(table, weights) - scores(reference, weights)

    resamples = np.concatenate([difference(weights) for weights in bootstrap_weights(groups)])
    low, high = percentile_interval(resamples)
    if np.isnan(low):
        return ""
    return f" {difference(np.ones((1, len(labels))))[0]:+.3f} ({low:+.3f} to {high:+.3f})"


def compare_experiments(
    rows: Sequence[Mapping[str, Any]],
    models: Mapping[str, str],
    locks: Mapping[str, Mapping[str, Any]],
    validations: Mapping[str, Mapping[str, pd.DataFrame | None]],
) -> str:
    """Write one table per set of validation photos, the best experiment first.

    Args:
        rows: from `dvc.api.exp_show`: one per experiment, and one each for the workspace and the
            last commit; parameters and metrics by their names.
        models: the networks to show, name to title.
        locks: the content of dvc.lock of each revision. If a network was trained with other
            parameters than the experiment's, because only another one was trained, its metric is
            not shown.
        validations: of each revision and network, its predictions of the validation photos.
    """
    commit = next(row for row in rows if row["rev"] != "workspace" and not row["Experiment"])
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        data = tuple(f"{key}={_short(row.get(key))}" for key in DATA)
        groups.setdefault(data, []).append(row)

    def difference(row: Mapping[str, Any], model: str) -> str:
        own, reference = (validations.get(one["rev"], {}).get(model) for one in (row, commit))
        return compare_with(own, reference)

    parts = []
    for data, members in groups.items():
        heading = "weighted F1 on validation"
        if len(groups) > 1:
            heading += f", validation photos of {' '.join(data)}"
        # What all have changed is said once.
        changes = [_changes(row, commit) for row in members]
        common = [change for change in changes[0] if all(change in other for other in changes)]
        if common:
            heading += f"\nall: {_shortened(common, 2 * WIDTH)}"
        lines = []
        for row, changed in zip(members, changes, strict=True):
            own = [change for change in changed if change not in common]
            trained = [_is_trained(row, locks.get(row["rev"], {}), model) for model in models]
            values = [
                row.get(f"metrics/val/{model}.json:{METRIC}") if known else None
                for model, known in zip(models, trained, strict=True)
            ]
            cells = [
                "-" if value is None else f"{value:.4f}{difference(row, model)}"
                for model, value in zip(models, values, strict=True)
            ]
            best = -1.0 if values[0] is None else values[0]
            lines.append((best, [_name(row, commit), _shortened(own, WIDTH), *cells]))
        lines.sort(key=lambda line: line[0], reverse=True)
        table = [line for _, line in lines]
        if any("(" in cell for line in table for cell in line[2:]):
            heading += "\nwith the difference from the last commit and its paired 95 % interval"
        parts.append(f"{heading}\n{_align([['experiment', 'changed', *models.values()], *table])}")
    if len(groups) > 1:
        parts.append("These tables do not compare with each other: their photos differ.")
    return "\n\n".join(parts)


def _align(lines: list[list[str]]) -> str:
    """Write lines of cells as text, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _name(row: Mapping[str, Any], commit: Mapping[str, Any]) -> str:
    if row["rev"] == "workspace":
        return "workspace"
    return "last commit" if row is commit else str(row["Experiment"] or row["rev"])


def _is_trained(row: Mapping[str, Any], lock: Mapping[str, Any], model: str) -> bool:
    """Say whether a network was trained with the parameters of its experiment."""
    stage = lock.get("stages", {}).get(f"train-{model}", {})
    used = _flatten(stage.get("params", {}).get("params.yaml", {}))
    return bool(used) and all(
        _short(row[key]) == _short(value) for key, value in used.items() if key in row
    )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested parameters with dots, as DVC does."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    """Write a parameter; DVC gives whole numbers as 32.0 and booleans as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _changes(row: Mapping[str, Any], commit: Mapping[str, Any]) -> list[str]:
    """List the parameters that differ from the last commit."""
    keys = [
        key
        for key in dict.fromkeys([*commit, *row])
        if key.partition(".")[0] in Params.model_fields
    ]
    changed = [key for key in keys if _short(row.get(key)) != _short(commit.get(key))]
    # Of an added network, the name says enough.
    texts = [
        f"networks+{key.split('.')[1]}"
        if key.startswith("networks.") and key not in commit
        else f"{key}={_short(row.get(key))}"
        for key in changed
    ]
    return list(dict.fromkeys(texts))


def _shortened(changes: list[str], width: int) -> str:
    text = " ".join(changes) or "nothing"
    return text if len(text) <= width else f"{text[: width - 1]}…"
