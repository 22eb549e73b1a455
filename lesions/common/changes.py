"""Changes: which parameters differ from the last commit, to be printed when a stage starts."""

import os
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lesions.common.params import PATH


def changed_parameters(stage: str | None = None) -> list[str]:
    """List the parameters of a stage that differ from the last commit, as "lr 0.001 → 0.0003".

    Args:
        stage: its name in dvc.yaml; by default the one that DVC is running, if any.

    Returns:
        Nothing without a stage, or where the commit cannot be read, for example without git.
    """
    stage = stage or os.environ.get("DVC_STAGE", "")
    command = ["git", "show", f"HEAD:./{PATH}"]
    yaml = YAML(typ="safe")
    try:
        read = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["params"]
        committed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        old, new = yaml.load(committed), yaml.load(PATH.read_text(encoding="utf-8"))
    except (OSError, KeyError, TypeError, YAMLError, subprocess.CalledProcessError):
        return []
    found = []
    for key in _flatten(read):
        before, now = _value(old, key), _value(new, key)
        if before != now:
            found.append(f"{key} {before} → {now}")
    return found


def _flatten(keys: list[Any]) -> list[str]:
    """List the keys of a stage; some are in a list under the name of the file."""
    return [name for key in keys for name in (key[str(PATH)] if isinstance(key, dict) else [key])]


def _value(values: Any, key: str) -> Any:
    """Look up a key with dots; None if it is missing."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
