"""Cards: what a trained model is for, what made it and how good it is, as Markdown."""

from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from lesions.answers import Answers
from lesions.diagnoses import DIAGNOSES
from lesions.networks import ARCHITECTURES, ModelCard
from lesions.scoring import words

FOLDER = Path(__file__).parent / "templates"


def number(value: float) -> str:
    """Write a figure to three places, and what is undefined as a dash."""
    return "–" if not np.isfinite(value) else f"{value:.3f}"


def interval(row: "pd.Series[float]") -> str:
    """Write a row's low and high."""
    return f"{number(row['low'])} to {number(row['high'])}" if np.isfinite(row["low"]) else "–"


def templates(autoescape: bool = False) -> jinja2.Environment:
    """Make the environment in which this package's templates are filled."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=autoescape
    )
    environment.filters.update(number=number, interval=interval, words=words)
    return environment


def write(card: ModelCard, tables: dict[str, pd.DataFrame], report: str, answers: Answers) -> str:
    """Fill templates/card.md.

    Args:
        card: from the model file.
        tables: from `scoring.tables`.
        report: from `scoring.report`.
        answers: to the test photos, with their distances.
    """
    assert answers.distances is not None
    return (
        templates()
        .get_template("card.md")
        .render(
            card=card,
            title=ARCHITECTURES[card.architecture].title,
            diagnoses=DIAGNOSES,
            drawn=card.recipe["source"] == "sample",
            photos=tables["per_class"]["photos"].sum(),
            lesions=tables["per_class"]["lesions"].sum(),
            scores=[row for _, row in tables["scores"].iterrows()],
            subgroups=[row for _, row in tables["subgroups"].iterrows()],
            report=report,
            doubted=(answers.probabilities.max(axis=1) < card.doubt).mean(),
            strange=(answers.distances > card.strange).mean(),
        )
    )
