"""Report: the last run on one page. Not a stage of dvc.yaml, because it names the commit."""

from pathlib import Path

from lesions.common.artifacts import write_text
from lesions.common.errors import run_cli
from lesions.common.params import load_params
from lesions.reporting.report import build_report

PAGE = Path("dvc_plots/report.html")


def main() -> None:
    """Write dvc_plots/report.html, which opens offline."""
    params = load_params()
    write_text(PAGE, build_report(list(params.networks), list(params.external_tests)))
    print(PAGE)


if __name__ == "__main__":
    run_cli(main)
