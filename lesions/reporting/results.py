"""The results of the last run, as data: everything that the report shows."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.common import layout
from lesions.common.errors import LesionsError
from lesions.common.params import SYNTHETIC, Params
from lesions.common.programs import run_dvc, run_git
from lesions.common.yaml_files import parse_yaml
from lesions.dataset.description import Description
from lesions.dataset.metadata import groups_of, read_header
from lesions.dataset.splits import find_leak
from lesions.evaluation import ensemble
from lesions.evaluation.comparison import verdicts
from lesions.networks.model_card import ModelCard
from lesions.networks.model_file import read_card

Row = dict[str, Any]
# Columns that are text even if all of it looks like numbers.
TEXT = (
    *("image_id", "lesion_id", "patient_id", "dx", "actual", "predicted", "model", "group"),
    *("first", "second", "metric", "measure", "title", "decision"),
)


@dataclass(frozen=True)
class TestSet:
    """The results on one test set; each table as its rows, None for what is not defined."""

    name: str
    photos: int
    metrics: list[Row]
    comparison: list[Row]
    per_class: list[Row]
    confusion: list[Row]
    decisions: list[Row]
    operating_points: list[Row]
    subgroups: list[Row]
    # Of the photos confirmed by histology alone; empty if that is not known, or all are.
    verified: list[Row]
    verified_operating_points: list[Row]
    group_calibration: list[Row]

    def of(self, table: str, *keys: str) -> dict[str, Any]:
        """Nest the rows of a table by two of its columns: {first: {second: row}}."""
        outer, inner = keys
        nested: dict[str, Any] = {}
        for row in getattr(self, table):
            nested.setdefault(row[outer], {})[row[inner]] = row
        return nested


@dataclass(frozen=True)
class Results:
    """All that the report shows; JSON can hold it."""

    dataset: Description
    source: str
    image_size: int
    run: Row  # from `describe_run`
    changed: list[str]  # since the run: parameters and code; from `check_one_run`
    models: list[Row]  # the networks, and perhaps their mean, which has no weights
    leaking: list[str]  # warnings
    verdicts: list[str]
    test: TestSet
    external_tests: list[TestSet]
    photos: list[Row]  # of each class, in each subset
    groups: str  # what was kept together: lesion or patient
    audit: dict[str, int]
    parameters: Row

    @property
    def synthetic(self) -> bool:
        """Whether the photos are those of a synthetic sample."""
        return self.source in SYNTHETIC

    def as_json(self) -> str:
        """Write all values as JSON."""
        return json.dumps({**asdict(self), "dataset": self.dataset.model_dump()}, indent=2) + "\n"


def read_results(models: list[str], external_tests: list[str], dataset: Description) -> Results:
    """Read what the stages wrote to metrics/, plots/, models/, data/split and dvc.lock.

    Args:
        models: all that were evaluated.
        external_tests: the names of the external test sets.
        dataset: its description.

    Raises:
        LesionsError: a result is missing, or not all are of one run.
    """
    changed = check_one_run(models, external_tests)
    cards = {model: read_card(layout.model_file(model)) for model in models}
    starts = {card.network.title: card.weights for card in cards.values()}
    test = _read_test_set("test set", layout.plots())
    evaluated = {row["model"] for row in test.metrics}
    if evaluated - {ensemble.TITLE} != set(starts):
        raise LesionsError(
            f"{layout.plots()}/metrics.csv: of {', '.join(sorted(evaluated))}, not of "
            f"{', '.join(sorted(starts))}. `dvc repro` evaluates all models."
        )
    paths = (layout.TRAIN_TABLE, layout.VAL_TABLE, layout.TEST_TABLE)
    train, val, tested = map(read_csv, paths)
    leaks = (find_leak(train, val, "validation"), find_leak(train, tested, "test"))
    leaking = [leak.warning for leak in leaks if leak]
    if chosen := find_leak(val, tested, "test").leaking:
        leaking.append(f"{chosen} test photos show a {leaks[0].word} that validation photos show.")
    card = next(iter(cards.values()))
    described = [_describe_model(model, card) for model, card in cards.items()]
    if ensemble.TITLE in evaluated:
        described.append({"name": ensemble.NAME, "title": ensemble.TITLE, "weights": None})
        starts[ensemble.TITLE] = " and ".join(dict.fromkeys(starts.values()))
    return Results(
        dataset=dataset,
        source=card.recipe.source,
        image_size=card.image_size,
        run=describe_run(),
        changed=changed,
        models=described,
        leaking=leaking,
        verdicts=_verdicts(test, starts, leaks[0].word),
        test=test,
        external_tests=[_read_test_set(name, layout.plots(name)) for name in external_tests],
        photos=_count_split({"train": train, "val": val, "test": tested}, dataset),
        groups=leaks[0].word,
        audit={str(k): int(n) for k, n in read_csv(layout.AUDIT)["finding"].value_counts().items()},
        parameters=parameters_of_last_run(),
    )


def check_one_run(models: list[str], external_tests: list[str]) -> list[str]:
    """Refuse results that were not all made from the same photos, parameters and models.

    Args:
        models, external_tests: as for `read_results`.

    Returns:
        What has changed since the run and would be used by the next one: parameters, code and
        other inputs, as words.

    Raises:
        LesionsError: names what differs.
    """
    changed: dict[str, None] = {}
    advice = "`dvc repro` makes all results anew; `git stash && dvc checkout` shows the committed."
    # What evaluation has read and written must be there as it was then.
    stages = ["evaluate", *(f"evaluate-external@{name}" for name in external_tests)]
    for stage, changes in json.loads(run_dvc("status", "--json")).items():
        if "changed command" in changes:
            changed[f"the command of {stage}"] = None
        parts = [part for change in changes if isinstance(change, dict) for part in change.values()]
        states = [item for part in parts if isinstance(part, dict) for item in part.items()]
        for path, state in states:
            is_output = any(Path(path).is_relative_to(folder) for folder in layout.OUTPUTS)
            if isinstance(state, dict):  # parameters
                changed |= dict.fromkeys(f"{key} in {path}" for key in state)
            elif stage not in stages or not is_output:
                changed[path] = None
            if stage not in stages or not is_output:
                continue
            if state == "deleted":
                raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
            raise LesionsError(
                f"{path}: is not what the stage {stage} has read or written, so the results are of "
                f"several runs. {advice}"
            )
    # All networks must have been trained alike, on the same photos.
    locked = parse_yaml(layout.LOCK.read_text(encoding="utf-8"))["stages"]
    first: dict[str, tuple[str, Any]] = {}
    for stage in (f"train-{model}" for model in models):
        entry = locked.get(stage, {})
        used = entry.get("params", {}).get(str(layout.PARAMS), {})
        read = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
        for key, value in {**used, **read}.items():
            if key.startswith(("networks", "lesions/", "stages/")):
                continue
            other, before = first.setdefault(key, (stage, value))
            if before != value:
                raise LesionsError(
                    f"{layout.LOCK}: {other} and {stage} differ in {key}, so the results are of "
                    f"several runs. {advice}"
                )
    return list(changed)


def _verdicts(test: TestSet, starts: dict[str, str], groups: str) -> list[str]:
    """Say what the comparison shows; nothing with one model."""
    if not test.comparison:
        return []
    table = pd.DataFrame(test.comparison).astype({"low": float, "significant": bool})
    return verdicts(table, test.photos, starts, groups)


def _read_test_set(name: str, folder: Path) -> TestSet:
    """Read the tables of a test set."""
    tables = [name for name in TestSet.__dataclass_fields__ if name not in ("name", "photos")]
    rows = {table: _rows(read_csv(folder / f"{table}.csv")) for table in tables}
    first = rows["per_class"][0]["model"]
    photos = sum(row["photos"] for row in rows["per_class"] if row["model"] == first)
    return TestSet(name=name, photos=photos, **rows)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that a stage has written; names and ids as text, whatever they look like.

    Raises:
        LesionsError: it is missing.
    """
    if not path.exists():
        raise LesionsError(f"{path}: not found. `dvc repro` makes it.")
    columns = read_header(path)
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT, str),
        keep_default_na=False,  # a class may be called NA
        na_values={name: [""] for name in columns if name not in TEXT},
    )


def _rows(table: pd.DataFrame) -> list[Row]:
    """List the rows of a table, with None for what is missing."""
    rows: list[Row] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows


def _describe_model(model: str, card: ModelCard) -> Row:
    """Say how a model was made: start, hardware, best epoch, time and speed of its training."""
    history = read_csv(layout.history(model))
    observations = (history["photos_per_second"] * history["seconds"]).sum()
    return {
        "name": model,
        "title": card.network.title,
        "weights": card.weights,
        "seed": card.seed,
        "precision": card.precision,
        "device": card.device,
        "versions": card.versions,
        "epochs": len(history),
        "best_epoch": int(history.loc[history["best"] == 1, "epoch"].iloc[0]),
        "training_seconds": round(float(history["seconds"].sum()), 1),
        "photos_per_second": round(float(observations / history["seconds"].sum()), 1),
    }


def _count_split(subsets: dict[str, pd.DataFrame], dataset: Description) -> list[Row]:
    """Count photos and groups of each class in train, validation and test; observations."""
    observations = read_csv(layout.BALANCED_TABLE)["dx"].value_counts()
    rows = []
    for code in dataset.classes:
        row: Row = {"dx": code, "observations": int(observations.get(code, 0))}
        for name, table in subsets.items():
            of_class = table[table["dx"] == code]
            row[f"{name}_photos"] = len(of_class)
            row[f"{name}_groups"] = int(groups_of(of_class).nunique())
        rows.append(row)
    return rows


def describe_run() -> Row:
    """Name the commit that holds the last run, and its date; the page's own commit is another.

    Returns:
        `commit` is the last one that changed dvc.lock; `committed` is false if dvc.lock has changed
        since. `date` is that of the commit, or of dvc.lock.
    """
    last = run_git("log", "-1", "--format=%h %cs", "--", "dvc.lock")
    commit, _, date = last.strip().partition(" ")
    committed = not run_git("status", "--porcelain", "--", "dvc.lock").strip()
    if not committed:
        written = layout.LOCK.stat().st_mtime
        date = datetime.fromtimestamp(written, UTC).date().isoformat()
    return {"commit": commit, "committed": committed, "date": date}


def parameters_of_last_run() -> Row:
    """Read the parameters of the last run from dvc.lock; params.yaml may have changed since.

    dvc.lock keeps stages that the pipeline no longer has; they are left out.
    """
    stages = parse_yaml(layout.LOCK.read_text(encoding="utf-8"))["stages"]
    used: Row = {}
    for name in run_dvc("stage", "list", "--name-only").split():
        used |= stages.get(name, {}).get("params", {}).get("params.yaml", {})
    return {key: used[key] for key in Params.model_fields if key in used}
