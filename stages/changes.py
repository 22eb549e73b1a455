"""Changes: which parameters differ from the last commit, to be printed when a stage starts."""

import os
from typing import Any

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.programs import run_git
from lesions.common.yaml_files import parse_yaml


def changed_parameters(stage: str | None = None) -> list[str]:
    """List the parameters of a stage that differ from the last commit, as "lr 0.001 → 0.0003".

    Args:
        stage: its name in dvc.yaml; by default the one that DVC is running, if any.

    Returns:
        Nothing without a stage, or where the commit cannot be read, for example without git.
    """
    stage = stage or os.environ.get("DVC_STAGE", "")
    try:
        read = parse_yaml(layout.PIPELINE.read_text(encoding="utf-8"))["stages"][stage]["params"]
        old = parse_yaml(run_git("show", f"HEAD:./{layout.PARAMS}"))
        new = parse_yaml(layout.PARAMS.read_text(encoding="utf-8"))
    except (OSError, KeyError, TypeError, ValueError, LesionsError):
        return []
    found = []
    for key in _flatten(read):
        found += _differences(key, _value(old, key), _value(new, key))
    return found


def _differences(key: str, before: Any, now: Any) -> list[str]:
    """Say how a value has changed; of nested ones, which parts."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        parts = [_differences(f"{key}.{name}", before.get(name), now.get(name)) for name in names]
        return [text for part in parts for text in part]
    if isinstance(before, dict) or isinstance(now, dict):
        return [f"{key} {'removed' if isinstance(before, dict) else 'added'}"]
    return [f"{key} {before} → {now}"]


def _flatten(keys: list[Any]) -> list[str]:
    """List the keys of a stage; some are in a list under the name of the file."""
    names: list[str] = []
    for key in keys:
        names += key.get(str(layout.PARAMS), []) if isinstance(key, dict) else [key]
    return names


def _value(values: Any, key: str) -> Any:
    """Look up a key with dots; None if it is missing."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
