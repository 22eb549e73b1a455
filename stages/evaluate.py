"""Stage evaluate: the models' answers for the test photos, and their scores."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lesions import cards, comparison, hardware, scoring
from lesions.answers import answer, predictions, submission
from lesions.artifacts import replacing, write_csv, write_json, write_text
from lesions.errors import run
from lesions.networks import ARCHITECTURES, load
from lesions.params import load_params


def main(models: Annotated[list[str], typer.Argument(help="The models, as trained.")]) -> None:
    """Score MODELS on the test photos, and on those of data/external: metrics/ and plots/."""
    params = load_params()
    hardware.compute_deterministically(params.deterministic)
    place = hardware.pick_device(params.device)
    bf16 = hardware.use_bf16(params.precision, place)
    answers, samples, tables = {}, {}, {}
    with replacing(Path("data/submissions"), folder=True) as submissions:
        for model in models:
            classifier = load(Path(f"models/{model}.safetensors"), place, bf16, model)
            own = answer(classifier, Path("data/resized"), Path("data/split/test.csv"))
            answers[model], samples[model] = own, scoring.resampled(own)
            tables[model] = scoring.tables(own, samples[model])
            report = scoring.report(own)
            print(f"\n{model} on {len(own.labels)} test photos\n{report}")
            write_json(Path(f"metrics/{model}.json"), scoring.headline(own))
            write_csv(Path(f"plots/{model}/predictions.csv"), predictions(own))
            card = cards.write(classifier.card, tables[model], report, own)
            write_text(Path(f"models/{model}.md"), card)
            figures = {}
            if params.external_test != "none":
                outside = answer(classifier, Path("data/external"), Path("data/external/test.csv"))
                print(f"\n{model} on {params.external_test}\n{scoring.report(outside)}")
                figures = scoring.headline(outside)
                write_csv(submissions / f"{model}.csv", submission(outside))
            write_json(Path(f"metrics/external/{model}.json"), figures)
    for name in scoring.TABLES:
        parts = [tables[model][name].assign(model=ARCHITECTURES[model].title) for model in models]
        write_csv(Path(f"plots/{name}.csv"), pd.concat(parts).round(5))
    compared = comparison.differences(answers, samples)
    write_csv(Path("plots/comparison.csv"), compared.round(5).assign(p=compared["p"]))
    print("", *comparison.conclude(compared, len(answers[models[0]].labels)), sep="\n")


if __name__ == "__main__":
    run(main)
