"""The course: does what its pages tell readers to do, with three seeds, and fills in what comes.

    make course

docs/course/README.md has the command that starts the course; its parameters are read from there.
`--folder` has what was trained, so that a second call only fills in. In the pages, what stands
between `<!-- output -->` or `<!-- effects -->` and `<!-- end -->` is replaced, and the pictures are
drawn again.

Most pages claim an effect above 0. Each effect has a 95 % interval, from a bootstrap over lesions
where nothing else is said. With seeds 0, 1 and 2, other photos are generated, other lesions are
held out, and the network starts from other weights; only page 7 changes nothing but the last.
"""

import contextlib
import re
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from lesions.common.artifacts import atomic_write, write_text
from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import Params
from lesions.common.types import Bools, Floats, Labels
from lesions.dataset.description import Description, load_description
from lesions.dataset.metadata import read_table
from lesions.evaluation.predictions import Predictions
from lesions.evaluation.tables import bootstrap
from lesions.networks import hardware
from lesions.networks.model_file import load
from lesions.reporting.pictures import write_picture
from lesions.reporting.render import interval, number
from lesions.scoring.intervals import bootstrap_weights, percentile_interval
from lesions.scoring.operating_points import score
from lesions.sources.sample import QUALITY
from lesions.sources.teaching import LOOKS, render_photo
from studies import choosing, pitfalls, shortcut
from studies.seeds import as_text as seeds_text
from studies.seeds import from_table, spread
from studies.trainings import ROOT, SetParam, read_params, run, train, write_params

MODEL = "mobilenetv2"
START = re.compile(r"dvc exp run (?:--name \S+ )?((?:-S \S+ ?|\\\n\s*)+)")
BLOCK = re.compile(r"(<!-- (output|effects) -->\n).*?(<!-- end -->)", re.DOTALL)


class Effect(NamedTuple):
    """A difference, with its 95 % interval."""

    value: float
    low: float
    high: float
    claimed: bool = False  # that it is above 0

    @property
    def holds(self) -> bool:
        """Whether these photos show what is claimed."""
        return self.low > 0 or not self.claimed

    def __str__(self) -> str:
        return f"{number(self.value)} ({interval(self._asdict())})"


class Lesson(NamedTuple):
    """What a page tells to do, done once."""

    output: str  # that a reader sees
    effects: dict[str, Effect]
    picture: Figure


class Course(NamedTuple):
    """A run of the pipeline, as docs/course/README.md starts it, with one seed."""

    folder: Path  # of all trainings
    place: Path  # of this run
    params: Params
    dataset: Description
    predictions: Predictions  # of the test photos
    balanced: Labels  # (n,) the classes that `decision: balanced` predicts
    printed: dict[str, str]  # of each decision, what the stage evaluate prints

    @property
    def watched(self) -> Bools:
        """Which test photos show what must be found: (n,)."""
        return np.isin(self.predictions.labels, self.dataset.indices(self.group))

    @property
    def group(self) -> str:
        """What must be found."""
        return self.dataset.watched or next(iter(self.dataset.groups))

    def called(self, predicted: Labels) -> Bools:
        """Which test photos are predicted as what must be found: (n,)."""
        return np.isin(predicted, self.dataset.indices(self.group))


def main(
    set_param: SetParam = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0 on.")] = 3,
    folder: Annotated[Path, typer.Option(help="Where trained models are kept.")] = Path("course"),
    pages: Annotated[Path, typer.Option(help="The pages to fill in.")] = ROOT / "docs/course",
) -> None:
    """Do what the pages tell readers to do, with several seeds, and fill in what comes."""
    changes = [*starting_changes(pages / "README.md"), *(set_param or [])]
    names = {path.stem for path in pages.glob("*.md")}
    if unknown := sorted(set(LESSONS) - names):
        raise LesionsError(f"{pages}: the page {unknown[0]}.md is missing.")
    lessons = []
    for seed in range(seeds):
        course = start(folder, changes, seed)
        lessons.append({name: lesson(course) for name, lesson in LESSONS.items()})
    write_sheet(pages / "photos.jpg")
    broken = []
    for name in LESSONS:
        fill(pages / f"{name}.md", [lesson[name] for lesson in lessons])
        write_picture(pages / f"{name}.png", lessons[0][name].picture)
        for seed, lesson in enumerate(lessons):
            for title, effect in lesson[name].effects.items():
                print(f"{name}, seed {seed}: {title} {effect}")
                broken += [] if effect.holds else [f"{name}, seed {seed}: {title}"]
    if broken:
        sys.exit(f"Does not hold on this machine: {'; '.join(broken)}.")
    print(f"{pages}: all claims hold")


def starting_changes(page: Path) -> list[str]:
    """Read the parameters that the course starts with, from the first `dvc exp run` of a page.

    Raises:
        LesionsError: the page has no such command.
    """
    found = START.search(page.read_text(encoding="utf-8"))
    if found is None:
        raise LesionsError(f"{page}: has no line with dvc exp run -S, which starts the course.")
    return re.findall(r"-S (\S+)", found[1])


def start(folder: Path, changes: list[str], seed: int) -> Course:
    """Run the pipeline with one seed for all that is random."""
    seeds = [f"{key}={seed}" for key in ("sample_seed", "split_seed", "seed")]
    params = read_params([*changes, *seeds], MODEL)
    place = train(folder, params, MODEL)
    dataset = load_description(params.dataset)
    # With the course's own decision last: what it writes is read below.
    printed = {
        decision: evaluate(place, params, decision) for decision in ("balanced", "most-probable")
    }
    predictions = read_predictions(place, dataset)
    used = hardware.set_up(params.device, "fp32", params.deterministic)
    fitted = load(place / f"models/{MODEL}.safetensors", used, MODEL).classifier.card.use(1)
    balanced = fitted.decide(predictions.probabilities, "balanced")
    return Course(folder, place, params, dataset, predictions, balanced, printed)


def evaluate(place: Path, params: Params, decision: str) -> str:
    """Evaluate a run's model under a decision.

    Returns:
        What the stage prints about the test set.
    """
    write_params(place, params.model_copy(update={"decision": decision}))
    output = run(place, "stages.evaluate")
    lines = output[: output.index("Look at it:")].strip().splitlines()
    return "\n".join(line for line in lines if not line.startswith("training time"))


def read_predictions(place: Path, dataset: Description) -> Predictions:
    """Read the predictions of a run's test photos."""
    table = read_table(place / f"plots/{MODEL}/predictions.csv", "image_id", "actual", "predicted")
    return from_table(table, dataset)


def mean_of(
    lead: Labels | Floats, part: Bools, groups: "pd.Series[str]", confidence: float = 0.95
) -> Effect:
    """Average a difference over photos.

    Args:
        lead: (n,) of each photo, for example 1 where only the first of two models is right.
        part: (n,) the photos that count.
        groups: (n,) the lesion or patient of each.
        confidence: of the interval.
    """
    lead = lead[part]
    samples = [
        w @ lead / w.sum(axis=1) for w in bootstrap_weights(groups[part].to_numpy(dtype=str))
    ]
    return Effect(float(lead.mean()), *percentile_interval(np.concatenate(samples), confidence))


def leak(course: Course) -> Lesson:
    """Page 1: what a split by photo reports, and a split by lesion."""
    with contextlib.chdir(course.place):
        found = pitfalls.study(MODEL, 0, 1200)
    effects = {
        one.part: Effect(one.leaking - one.honest, one.low, one.high, one is not found.leaks[1])
        for one in found.leaks  # the second are the control
    }
    table, classes = found.table, found.table["dx"].to_numpy()
    lesions = table["lesion_id"].to_numpy()
    telling = (lesions[found.leaking] == lesions) & (classes[found.honest] != classes)
    cases = table[telling].drop_duplicates("dx").head(3).index
    columns = {"a photo": cases, "its nearest neighbour:\nsplit by photo": found.leaking[cases]}
    columns["its nearest neighbour:\nsplit by lesion"] = found.honest[cases]
    figure = Figure(figsize=(5, 1.4 * len(cases) + 0.5), layout="constrained")
    axes = figure.subplots(len(cases), 3, squeeze=False)
    for title, of_title, rows in zip(columns, axes.T, columns.values(), strict=True):
        of_title[0].set_title(title, fontsize=10)
        for axis, row in zip(of_title, rows, strict=True):
            show(axis, course.place / f"data/raw/images/{table['image_id'][row]}.jpg")
            axis.set_xlabel(f"{classes[row]}, {lesions[row]}", fontsize=9)
    return Lesson(found.text, effects, figure)


def threshold(course: Course) -> Lesson:
    """Page 2: the most probable class, and a threshold."""
    predictions, cases, group = course.predictions, course.watched, course.group
    points = pd.read_csv(course.place / "plots/operating_points.csv")
    chosen = points.query("group == @group and aim == 0.9 and not assured")
    if chosen.empty:
        raise LesionsError(f"too few validation photos of {group}: raise sample_size.")
    point = chosen.iloc[0]
    scores = score(predictions.probabilities, course.dataset.indices(group))
    probable, above = course.called(predictions.predicted), scores >= point["threshold"]
    lead = above.astype(int) - probable
    effects = {
        f"{group} found: threshold − most probable": mean_of(lead, cases, predictions.groups),
        "false alarms: threshold − most probable": mean_of(lead, ~cases, predictions.groups),
    }
    effects = {title: effect._replace(claimed=True) for title, effect in effects.items()}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    order = np.argsort(-scores, kind="stable")
    axis.plot(np.cumsum(~cases[order]), np.cumsum(cases[order]), color="0.6")
    for name, called, marker in (
        (f"most probable class is {group}", probable, "s"),
        (f"above the threshold for .90 ({point['threshold']:.2f})", above, "o"),
    ):
        axis.plot((called & ~cases).sum(), (called & cases).sum(), marker, markersize=9, label=name)
    axis.axhline(0.9 * cases.sum(), color="0.6", linestyle=":", label="90 % of them")
    axis.set_xlabel(f"false alarms, of {(~cases).sum()} other test photos")
    axis.set_ylabel(f"found, of {cases.sum()} test photos of {group}")
    axis.legend(loc="lower right")
    return Lesson(course.printed["most-probable"], effects, figure)


def planted(course: Course) -> Lesson:
    """Page 3: rulers on most training photos of what must be found."""
    found = shortcut.study(course.params, MODEL, 0.8, course.folder)
    labels, groups = found.photos.labels, pd.Series(found.photos.lesions)
    members = course.dataset.indices(course.group)
    cases = np.isin(labels, members)
    every = np.full(len(labels), True)
    without, with_rulers = found.probabilities
    # Of each photo, trained with rulers − without: whether it is predicted as it, and rightly.
    called, right = {}, {}
    for kind in (shortcut.WITHOUT, shortcut.AS_TRAINED, shortcut.ON_ALL):
        first, second = without[kind].argmax(axis=1), with_rulers[kind].argmax(axis=1)
        called[kind] = np.isin(second, members).astype(int) - np.isin(first, members)
        right[kind] = (second == labels).astype(int) - (first == labels)
    rise = called[shortcut.ON_ALL] - called[shortcut.WITHOUT]
    effects = {
        f"others predicted as {course.group}: rise by a ruler, trained with rulers − without": (
            mean_of(rise, ~cases, groups)._replace(claimed=True)
        ),
        "accuracy with rulers as in training: trained with rulers − without": (
            mean_of(right[shortcut.AS_TRAINED], every, groups)._replace(claimed=True)
        ),
        "accuracy without rulers: trained with rulers − without": mean_of(
            right[shortcut.WITHOUT], every, groups
        ),
        f"{course.group} found without rulers: trained with rulers − without": mean_of(
            called[shortcut.WITHOUT], cases, groups
        ),
    }
    return Lesson(shortcut.as_text(found.table), effects, found.picture)


def imbalance(course: Course) -> Lesson:
    """Page 5: accuracy and balanced accuracy; two decisions from the same probabilities."""
    predictions, groups = course.predictions, course.predictions.groups
    labels, dataset = predictions.labels, course.dataset
    called, right = (
        of_balanced.astype(int) - of_probable
        for of_balanced, of_probable in (
            (course.called(course.balanced), course.called(predictions.predicted)),
            (course.balanced == labels, predictions.predicted == labels),
        )
    )
    found = mean_of(called, course.watched, groups)._replace(claimed=True)
    every = np.full(len(labels), True)
    # Balanced accuracy is an accuracy in which all classes weigh the same.
    counts = np.bincount(labels, minlength=len(dataset.classes))
    weights = len(labels) / (np.count_nonzero(counts) * counts[labels])
    effects = {
        f"{course.group} found: balanced − most probable": found,
        "balanced accuracy: balanced − most probable": mean_of(right * weights, every, groups),
        "accuracy: balanced − most probable": mean_of(right, every, groups),
    }
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    classes = np.arange(len(dataset.classes))
    common = np.bincount(labels).argmax()
    for shift, name, predicted in (
        (-0.27, f'always "{dataset.classes[common]}"', np.full_like(labels, common)),
        (0, "most probable", predictions.predicted),
        (0.27, "balanced", course.balanced),
    ):
        right = [(predicted == labels)[labels == one].mean() for one in classes]
        axis.bar(
            classes + shift,
            right,
            0.25,
            label=f"{name}: accuracy {number((predicted == labels).mean())}, "
            f"balanced accuracy {number(np.mean(right))}",
        )
    axis.set_xticks(
        classes,
        [f"{name}\n{(labels == one).sum()} photos" for one, name in enumerate(dataset.classes)],
    )
    axis.set_ylabel("sensitivity")
    figure.legend(loc="outside upper center", ncols=1)
    return Lesson(course.printed["balanced"], effects, figure)


def choice(course: Course) -> Lesson:
    """Page 6: a model chosen on the test set, and on the validation set."""
    with contextlib.chdir(course.place):
        found = choosing.study(100, 100, 0)
    on_test, on_validation = (Effect(one.reported - one.new, one.low, one.high) for one in found)
    effects = {
        "chosen on the test set: test − new photos": on_test._replace(claimed=True),
        "chosen on the validation set: test − new photos": on_validation,
    }
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    for one in found:
        axis.plot([0, 1], [one.reported, one.new], "o-", label=f"chosen on {one.chosen_on}")
    axis.set_xticks([0, 1], ["on the test set", "on new photos"])
    axis.set_xlim(-0.3, 1.3)
    axis.set_ylabel("accuracy of the chosen model")
    axis.legend()
    return Lesson(choosing.as_text(found), effects, figure)


def luck(course: Course) -> Lesson:
    """Page 7: networks that differ in nothing but the seed of their training."""
    networks = [course.predictions]
    for more in (1, 2):
        params = course.params.model_copy(update={"seed": course.params.seed + more})
        place = train(course.folder, params, MODEL)
        evaluate(place, params, "most-probable")
        networks.append(read_predictions(place, course.dataset))
    effects = compare(networks)
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axis = figure.subplots()
    for row, one in enumerate(networks):
        low, high = percentile_interval(bootstrap(one)["accuracy"])
        axis.plot([low, high], [row, row], color="0.6", linewidth=3)
        axis.plot((one.predicted == one.labels).mean(), row, "o")
    axis.set_yticks(range(len(networks)), [f"network {row + 1}" for row in range(len(networks))])
    axis.invert_yaxis()
    count = len(course.predictions.labels)
    axis.set_xlabel(f"accuracy on {count} test photos, and its 95 % interval")
    return Lesson(seeds_text(spread([networks])), effects, figure)


def compare(networks: list[Predictions]) -> dict[str, Effect]:
    """Compare the accuracies of every two networks, with Bonferroni's correction."""
    right = [(one.predicted == one.labels).astype(int) for one in networks]
    pairs = list(combinations(range(len(networks)), 2))
    every, groups = np.full(len(right[0]), True), networks[0].groups
    return {
        f"accuracy: network {second + 1} − {first + 1}": mean_of(
            right[second] - right[first], every, groups, 1 - 0.05 / len(pairs)
        )
        for first, second in pairs
    }


def write_sheet(path: Path) -> None:
    """Draw four lesions of each look, each in two photos."""
    sheet = Image.new("RGB", (8 * 100 + 80, len(LOOKS) * 78), "white")
    pen = ImageDraw.Draw(sheet)
    for row, look in enumerate(LOOKS):
        pen.text((6, row * 78 + 32), look, "black")
        for column in range(8):
            photo = render_photo(look, 0, 10 * row + column // 2, column % 2)
            sheet.paste(photo.resize((98, 74)), (80 + column * 100, row * 78))
    with atomic_write(path) as partial:
        sheet.save(partial, "JPEG", quality=QUALITY)


def show(axis: Axes, path: Path) -> None:
    """Draw a photo without ticks."""
    with Image.open(path) as photo:
        axis.imshow(np.asarray(photo))
    axis.set_xticks([])
    axis.set_yticks([])


def fill(page: Path, lessons: list[Lesson]) -> None:
    """Replace a page's blocks by what came: of the first seed the output, of all the effects.

    Raises:
        LesionsError: the page does not have both blocks, each once.
    """
    lines = [
        f"| difference | {' | '.join(f'seed {seed}' for seed in range(len(lessons)))} |",
        f"|---|{'---|' * len(lessons)}",
    ]
    for title in lessons[0].effects:
        cells = [str(lesson.effects[title]) for lesson in lessons]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    output = lessons[0].output
    blocks = {
        "output": output if output.startswith("|") else f"```text\n{output}\n```",
        "effects": table,
    }
    text = page.read_text(encoding="utf-8")
    if sorted(match[1] for match in BLOCK.findall(text)) != sorted(blocks):
        raise LesionsError(
            f"{page}: needs <!-- output --> … <!-- end --> and <!-- effects --> … <!-- end -->, "
            "each once."
        )
    write_text(page, BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text))


LESSONS: dict[str, Callable[[Course], Lesson]] = {
    "1-leak": leak,
    "2-threshold": threshold,
    "3-shortcut": planted,
    "5-imbalance": imbalance,
    "6-choosing": choice,
    "7-luck": luck,
}

if __name__ == "__main__":
    run_cli(main)
