"""The stages as command lines, and dvc.yaml against what they import and read."""

import ast
import importlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, change_params, copy_inputs, invoke, python
from PIL import Image

from lesions.common import layout
from lesions.common.params import Augment, Params, TrainingParams, load_params

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
# The stages for each external test set are written once, under `do`.
STAGES: dict[str, Any] = {name: one.get("do", one) for name, one in PIPELINE["stages"].items()}
NETWORKS = load_params(ROOT / "params.yaml").networks
NAMES = [
    *("download", "resize", "split", "balance", *(f"train-{name}" for name in NETWORKS)),
    *("evaluate", "external", "evaluate-external"),
]
# The folders of lesions/ in the order of the story: each may import those above it.
CHAPTERS = (
    *("common", "dataset", "sources", "scoring", "networks", "training"),
    *("evaluation", "reporting", "serving", "curation"),
)
TORCH_FREE = ("common", "dataset", "sources", "scoring")


def modules(file: str) -> set[str]:
    """Find the files of this project that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        files = [name.replace(".", "/") + ".py" for name in names]
        found |= {file for file in files if (ROOT / file).is_file()}
    return found


def all_modules(file: str) -> set[str]:
    """Find what a file imports, and what those files import, and so on."""
    known, new = set[str](), {file}
    while new:
        known |= new
        new = set().union(*(modules(name) for name in new)) - known
    return known


def script(stage: str) -> str:
    module: str = STAGES[stage]["cmd"].split()[2]
    return module.replace(".", "/") + ".py"


def listed_params(stage: str) -> set[str]:
    """List the parameters of a stage by their first key."""
    names: list[str] = []
    for entry in STAGES[stage]["params"]:
        names += entry.get("params.yaml", []) if isinstance(entry, dict) else [entry]
    return {name.partition(".")[0] for name in names}


def params_read(file: str) -> set[str]:
    """Find the fields of `params`, and the methods that look one up, which a file uses."""
    lookups = {"network": "networks", "external_test": "external_tests"}
    used = {
        lookups.get(node.attr, node.attr)
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
    }
    return used & set(Params.model_fields)


def test_names_and_order() -> None:
    assert list(STAGES) == NAMES
    for stage in STAGES.values():
        assert stage["desc"].endswith(".")
        assert stage["cmd"].startswith("python -m stages.")
    for model in NETWORKS:
        assert STAGES[f"train-{model}"]["cmd"].split()[-1] == model
        assert f"networks.{model}" in STAGES[f"train-{model}"]["params"]
        assert PIPELINE["artifacts"][model]["path"] in STAGES[f"train-{model}"]["outs"]


@pytest.mark.parametrize("stage", NAMES)
def test_code_dependencies_are_the_folders_that_a_stage_imports(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("lesions/", "stages/"))}
    files = {file for file in all_modules(script(stage)) if not file.endswith("__init__.py")}
    folders = {str(Path(file).parent) for file in files if file.startswith("lesions/")}
    assert listed == folders | {script(stage)}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_chapter_imports_one_below_it(chapter: str) -> None:
    above = CHAPTERS[: CHAPTERS.index(chapter) + 1]
    for path in (ROOT / "lesions" / chapter).rglob("*.py"):
        for file in modules(str(path.relative_to(ROOT))):
            assert file.startswith(tuple(f"lesions/{name}/" for name in above)), (path.name, file)


def test_every_folder_is_a_chapter_and_only_some_need_torch() -> None:
    folders = {path.parent.name for path in (ROOT / "lesions").glob("*/__init__.py")}
    assert folders == set(CHAPTERS)
    for chapter in TORCH_FREE:
        for path in (ROOT / "lesions" / chapter).rglob("*.py"):
            assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("stage", NAMES)
def test_params_are_those_read(stage: str) -> None:
    read = params_read(script(stage))
    if stage.startswith("train-"):
        files = ("lesions/training/loop.py", "lesions/training/epochs.py")
        read |= set.union(*map(params_read, files)) | {"source", "weights"}  # starting_weights
        assert read == set(TrainingParams.model_fields) | {"networks", "dataset"}
    if stage == "evaluate-external":
        read -= {"augment", "seed"}  # for pictures of training photos, which only evaluate draws
    assert listed_params(stage) == read


def test_every_param_is_some_stages() -> None:
    assert set().union(*map(listed_params, STAGES)) == set(Params.model_fields)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(Augment.model_fields) == set(values["augment"])


def test_shown_files_are_not_cached_and_others_are() -> None:
    for stage in STAGES.values():
        for shown in stage.get("metrics", []) + stage.get("plots", []):
            assert next(iter(shown.values()))["cache"] is False
        for out in stage.get("outs", []):  # of a folder, DVC leaves the old files to the stage
            assert isinstance(out, str) or next(iter(out.values())) == {"persist": True}


def test_only_evaluate_reads_the_test_rows_and_training_never_evaluates() -> None:
    readers = [name for name, stage in STAGES.items() if "data/split/test.csv" in stage["deps"]]
    assert readers == ["evaluate"]
    assert not [file for file in all_modules("stages/train.py") if "/evaluation/" in file]


@pytest.mark.parametrize("stage", NAMES)
def test_scripts_read_and_write_what_is_declared(stage: str) -> None:
    """Every path that a script takes from `layout` is one of the stage's own: val is never test."""
    external = "${key}" if "external" in stage else None
    model = stage.removeprefix("train-") if stage.startswith("train-") else "resnet50"
    entries = list(STAGES[stage]["deps"])
    for kind in ("outs", "metrics", "plots"):
        entries += [
            out if isinstance(out, str) else next(iter(out)) for out in STAGES[stage].get(kind, [])
        ]
    text = (ROOT / script(stage)).read_text()
    assert not re.search(r"[\"'](data|models|metrics|plots)/", text.partition("def main")[2])
    for name in set(re.findall(r"layout\.(\w+)", text)):
        found = getattr(layout, name)
        if callable(found):
            by_external = name.startswith("external") or name == "plots"
            arguments = [external] if by_external else [model]
            found = found(*arguments, *([external] if name == "metrics" else []))
        path = found.as_posix()
        declared = any(path == entry or path.startswith(f"{entry}/") for entry in entries)
        assert declared or any(entry.startswith(f"{path}/") for entry in entries), path


def test_a_stage_depends_on_what_it_reads_of_the_dataset() -> None:
    keys = {}
    for name, stage in STAGES.items():
        listed = [one for entry in stage["params"] if isinstance(entry, dict) for one in [entry]]
        keys[name] = [entry["${dataset}"] for entry in listed if "${dataset}" in entry]
        whole = "${dataset}" in stage["deps"]
        reads = "load_description" in (ROOT / script(name)).read_text()
        assert reads == bool(keys[name] or whole), name
    assert keys["split"] == keys["balance"] == [["classes"]]
    assert all(keys[f"train-{name}"] == [["classes", "groups", "watched"]] for name in NETWORKS)


@pytest.mark.parametrize(
    "stage",
    ["download", "resize", "split", "balance", "train", "external", "evaluate"],
)
def test_help(stage: str) -> None:
    result = invoke(command(stage), "--help", folder=ROOT)
    assert result.returncode == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("stage", ["download", "split", "balance"])
def test_table_stages_do_not_wait_for_torch(stage: str) -> None:
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    assert python("-c", code, folder=ROOT).returncode == 0


def command(stage: str) -> Callable[..., None]:
    """Find a stage's function."""
    main: Callable[..., None] = importlib.import_module(f"stages.{stage}").main
    return main


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with params.yaml and datasets/ alone."""
    copy_inputs(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stage", NAMES)
def test_a_wrong_param_stops_every_stage_in_one_line(stage: str, workplace: Path) -> None:
    change_params(workplace / "params.yaml", lr=-1)
    module, *arguments = STAGES[stage]["cmd"].split()[2:]
    result = invoke(command(module.removeprefix("stages.")), *arguments, folder=workplace)
    assert result.returncode == 1
    assert result.stderr == "error: params.yaml: lr is -1: it should be greater than 0\n"
    assert sorted(path.name for path in workplace.iterdir()) == ["datasets", "params.yaml"]


@pytest.mark.parametrize("stage", NAMES)
def test_no_command_line_contains_a_value_that_a_shell_would_run(stage: str) -> None:
    assert re.fullmatch(r"python -m stages\.[a-z_]+( [a-z0-9_-]+)?", STAGES[stage]["cmd"])


def test_an_external_test_set_must_be_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke(command("external"), folder=workplace)
    assert result.stderr.startswith("error: Name an external test set")
    monkeypatch.setenv("DVC_STAGE", "external@clinic")
    result = invoke(command("external"), folder=workplace)
    assert result.stderr.startswith("error: external test 'clinic' is unknown")


def test_unknown_model(workplace: Path) -> None:
    result = invoke(command("train"), "vgg", folder=workplace)
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: model 'vgg' is unknown; `networks` in params.yaml has resnet50"
    )


def test_a_bad_photo_stops_resize_and_leaves_nothing(workplace: Path, raw: Path) -> None:
    images = workplace / "data" / "raw" / "images"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes((sorted((raw / "images").iterdir()))[0].read_bytes())
    (images / "b.jpg").write_bytes(b"no photo")
    result = invoke(command("resize"), folder=workplace)
    assert result.returncode == 1
    assert "error: data/raw/images/b.jpg: not a photo" in result.stderr
    assert sorted(path.name for path in (workplace / "data").iterdir()) == ["raw"]


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--foo", "x"]])
def test_wrong_use_is_explained(arguments: list[str]) -> None:
    result = invoke(command("train"), *arguments, folder=ROOT)
    assert result.returncode == 2
    assert "Usage" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_ends_in_one_line(
    workplace: Path, tmp_path: Path, number: signal.Signals
) -> None:
    images = workplace / "data" / "raw" / "images"
    images.mkdir(parents=True)
    # Large photos, so that the stage cannot end before the signal, however busy the machine is.
    Image.new("RGB", (2000, 2000), "brown").save(tmp_path / "large.png")
    for index in range(3000):
        (images / f"{index}.png").symlink_to(tmp_path / "large.png")
    change_params(workplace / "params.yaml", image_size=64)  # little room is asked for
    # A shell's background job, as CI may be, hands down an ignored SIGINT; a handled one it heeds.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.resize"], cwd=workplace, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    # Once photos are written nothing is imported any more: Python ignores an interruption in there.
    written = workplace / "data" / ".resized.partial" / "images.npy"
    while not (written.exists() and written.stat().st_size > 10 * 64 * 64 * 3):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.endswith("interrupted: no half-written file is left\n")
    assert "Traceback" not in errors
    assert [path.name for path in (workplace / "data").iterdir()] == ["raw"]


def test_a_file_where_a_folder_should_be(workplace: Path) -> None:
    (workplace / "data").write_text("")
    result = invoke(command("download"), folder=workplace)
    assert result.returncode == 1
    assert result.stderr.startswith("error: data")
    assert "Traceback" not in result.stderr


def test_no_photos(workplace: Path) -> None:
    result = invoke(command("resize"), folder=workplace)
    assert result.returncode == 1
    assert "error: data/raw/images: no photos" in result.stderr


def test_a_signal_after_the_last_line_brings_no_traceback() -> None:
    program = """
import atexit, os, signal
from lesions.common.errors import LesionsError, run_cli
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
def main() -> None:
    raise LesionsError("the one line")
run_cli(main)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stderr == "error: the one line\n"
    assert ended.returncode == -signal.SIGTERM


OWN_WORDS = re.compile(
    r"\b(akiec|bcc|bkl|nv|vasc|melanomas?|nev(us|i)|malignant|benign_|dermatofibroma|HAM ?10000"
    r"|seven diagnoses|Vienna|Queensland)\b",
    re.IGNORECASE,
)


def test_only_the_sources_know_one_dataset() -> None:
    """Classes, groups and words come from the description, in code and on pages."""
    for path in sorted((ROOT / "lesions").rglob("*")):
        if path.suffix in (".py", ".html", ".md", ".css") and path.parent.name != "sources":
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                assert not OWN_WORDS.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"
