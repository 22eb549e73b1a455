"""The table of experiments: what each one changed, and how good it is on validation."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.params import Params
from lesions.common.yaml_files import parse_yaml

# Experiments that differ in these have other validation photos: their metrics do not compare.
DATA = (
    "dataset",
    "source",
    "sample_seed",
    "split_seed",
    "val_share",
    "test_share",
    "same_lesion",
    "holdout",
)
METRIC = "weighted_f1"
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
    return compare_experiments(rows, models, {row["rev"]: read_lock(row["rev"]) for row in rows})


def read_lock(revision: str) -> dict[str, Any]:
    """Read dvc.lock of a revision, or of the workspace; empty if it has none."""
    if revision == "workspace":
        text = layout.LOCK.read_text(encoding="utf-8") if layout.LOCK.exists() else ""
    else:
        command = ["git", "show", f"{revision}:./{layout.LOCK}"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return parse_yaml(text) or {}


def compare_experiments(
    rows: Sequence[Mapping[str, Any]],
    models: Mapping[str, str],
    locks: Mapping[str, Mapping[str, Any]],
) -> str:
    """Write one table per set of validation photos, the best experiment first.

    Args:
        rows: from `dvc.api.exp_show`: one per experiment, and one each for the workspace and the
            last commit; parameters and metrics by their names.
        models: the networks to show, name to title.
        locks: the content of dvc.lock of each revision. If a network was trained with other
            parameters than the experiment's, because only another one was trained, its metric is
            not shown.
    """
    commit = next(row for row in rows if row["rev"] != "workspace" and not row["Experiment"])
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        data = tuple(f"{key}={_short(row.get(key))}" for key in DATA)
        groups.setdefault(data, []).append(row)
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
            lines.append((values, [_name(row, commit), _shortened(own, WIDTH)]))
        lines.sort(key=lambda line: -1.0 if line[0][0] is None else line[0][0], reverse=True)
        cells = [
            [*names, *("-" if value is None else f"{value:.4f}" for value in values)]
            for values, names in lines
        ]
        parts.append(f"{heading}\n{_align([['experiment', 'changed', *models.values()], *cells])}")
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
