"""Compare: all experiments on validation. Not a stage of dvc.yaml, because it only reads."""

from typing import Annotated

import dvc.api
import typer

from lesions.common.errors import LesionsError, run_cli
from lesions.common.params import load_params
from lesions.reporting.experiments import compare_experiments


def main(
    model: Annotated[
        str | None, typer.Argument(help="Show only this network; the best of it comes first.")
    ] = None,
) -> None:
    """List the experiments: what each one changed, and its weighted F1 on validation."""
    params = load_params()
    names = [model] if model else list(params.networks)
    titles = {name: params.network(name).title for name in names}
    try:
        rows = dvc.api.exp_show()
    except Exception as error:  # DVC's errors have many kinds
        raise LesionsError(f"dvc exp show: {error}") from None
    print(compare_experiments(rows, titles))


if __name__ == "__main__":
    run_cli(main)
