import pytest
from helpers import ROOT

from lesions.reporting.plot_templates import FOLDER, as_text, templates


@pytest.mark.parametrize("name", templates())
def test_the_files_are_what_the_module_makes(name: str) -> None:
    written = (ROOT / FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert written == as_text(templates()[name]), "run `make templates`"


def test_no_other_template_is_there() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.json")} == set(templates())
