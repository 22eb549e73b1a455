"""The table of experiments: what each one changed, and how good it is on validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lesions.common.params import Params

# Experiments that differ in these have other validation photos: their metrics do not compare.
DATA = ("source", "sample_seed", "split_seed", "val_share", "test_share", "holdout")
METRIC = "weighted_f1"
WIDTH = 50  # characters of the column of changes


def compare_experiments(rows: Sequence[Mapping[str, Any]], models: Mapping[str, str]) -> str:
    """Write one table per set of validation photos, the best experiment first.

    Args:
        rows: from `dvc.api.exp_show`: one per experiment, and one each for the workspace and the
            last commit; parameters and metrics by their names.
        models: the networks to show, name to title.
    """
    commit = next(row for row in rows if row["rev"] != "workspace" and not row["Experiment"])
    first = f"metrics/val/{next(iter(models))}.json:{METRIC}"
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        data = tuple(f"{key}={row.get(key)}" for key in DATA)
        line: dict[str, Any] = {"experiment": _name(row, commit), "changed": _changes(row, commit)}
        for model, title in models.items():
            line[title] = row.get(f"metrics/val/{model}.json:{METRIC}")
        groups.setdefault(data, []).append({**line, "order": row.get(first)})
    heading = "weighted F1 on validation"
    parts = []
    for data, lines in groups.items():
        table = pd.DataFrame(lines).sort_values("order", ascending=False, kind="stable")
        table = table.drop(columns="order").astype(object).fillna("-").astype(str)
        widths = {name: max(len(str(name)), *table[name].str.len()) for name in table}
        padded = [table.columns, *table.to_numpy()]
        text = "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True))
            for cells in padded
        )
        photos = f", validation photos of {' '.join(data)}" if len(groups) > 1 else ""
        parts.append(f"{heading}{photos}\n{text}")
    if len(groups) > 1:
        parts.append("These tables do not compare with each other: their photos differ.")
    return "\n\n".join(parts)


def _name(row: Mapping[str, Any], commit: Mapping[str, Any]) -> str:
    if row["rev"] == "workspace":
        return "workspace"
    return "last commit" if row is commit else str(row["Experiment"] or row["rev"])


def _changes(row: Mapping[str, Any], commit: Mapping[str, Any]) -> str:
    """List the parameters that differ from the last commit, shortened to WIDTH characters."""
    keys = [key for key in commit if key.partition(".")[0] in Params.model_fields]
    changes = " ".join(f"{key}={row.get(key)}" for key in keys if row.get(key) != commit[key])
    if not changes:
        return "nothing"
    return changes if len(changes) <= WIDTH else changes[: WIDTH - 1] + "…"
