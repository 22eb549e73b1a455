"""The networks of the pipeline: adds one to params.yaml and dvc.yaml, or takes one out.

Everything else in both files stays as it is, comments too. The blocks of a new network are copies
of those of the last one, with its name and title.
"""

import json
import re
from collections.abc import Iterator

from lesions.common import layout
from lesions.common.artifacts import write_text
from lesions.common.errors import LesionsError
from lesions.common.params import NetworkSpec, check_params, load_params
from lesions.common.yaml_files import parse_yaml


def add_network(name: str, spec: NetworkSpec) -> None:
    """Write a network into params.yaml and dvc.yaml.

    Raises:
        LesionsError: the name or title is taken or not allowed, or dvc.yaml has no block to copy.
    """
    params = load_params()
    if name in params.networks:
        raise LesionsError(f"network {name}: {layout.PARAMS} has it already.")
    entry = spec.model_dump(exclude_defaults=True)
    networks = {key: dict(value) for key, value in params.networks.items()} | {name: entry}
    check_params({**params.model_dump(), "networks": networks})
    last = list(params.networks)[-1]
    old = params.networks[last]

    # params.yaml: after the block of the last network.
    lines = layout.PARAMS.read_text(encoding="utf-8").splitlines()
    start, end = _entry(lines, last)
    block = [f"  {name}:", *(f"    {key}: {_quoted(value)}" for key, value in entry.items())]
    new_params = [*lines[:end], *block, *lines[end:]]

    # dvc.yaml: a copy after each block of the last network.
    lines = layout.PIPELINE.read_text(encoding="utf-8").splitlines()
    blocks = list(_blocks(lines, last))
    if not blocks:
        raise LesionsError(f"{layout.PIPELINE}: does not name {last}, whose blocks are copied.")
    for start, end in reversed(blocks):
        copy = [
            _renamed(line, last, name).replace(old.title, spec.title) for line in lines[start:end]
        ]
        if "&" in "".join(copy):
            raise LesionsError(
                f"{layout.PIPELINE}: the block of {last} in line {start + 1} defines an anchor "
                "(&), so it cannot be copied. Move it to another network's block."
            )
        lines[end:end] = [*([""] if start and not lines[start - 1] else []), *copy]
    _write(new_params, lines)


def remove_network(name: str) -> None:
    """Take a network out of params.yaml and dvc.yaml.

    Raises:
        LesionsError: it is not there, or is the only one.
    """
    params = load_params()
    params.network(name)
    if len(params.networks) == 1:
        raise LesionsError(f"network {name}: is the only one; add another first.")
    entries = layout.PARAMS.read_text(encoding="utf-8").splitlines()
    start, end = _entry(entries, name)
    del entries[start:end]
    lines = layout.PIPELINE.read_text(encoding="utf-8").splitlines()
    blocks = list(_blocks(lines, name))
    if any("&" in line for start, end in blocks for line in lines[start:end]):
        # Other networks refer to these blocks (the anchors after &). So they become the blocks of
        # the next network, whose own are deleted.
        heir = next(other for other in params.networks if other != name)
        titles = params.networks[name].title, params.networks[heir].title
        own = list(_blocks(lines, heir))
        for start, end in blocks:
            renamed = [_renamed(line, name, heir) for line in lines[start:end]]
            lines[start:end] = [line.replace(*titles) for line in renamed]
        blocks = own
    for start, end in reversed(blocks):
        blank = start > 0 and not lines[start - 1] and (end == len(lines) or not lines[end])
        del lines[start - blank : end]
    _write(entries, lines)


def _entry(lines: list[str], name: str) -> tuple[int, int]:
    """Find a network's entry in params.yaml: its first line, and the line after its last."""
    inside = False
    for number, line in enumerate(lines):
        inside = line.startswith("networks:") or (inside and line[:1] in ("", " ", "#"))
        if inside and re.match(rf" +{name}: *(#.*)?$", line):
            return number, _end(lines, number)
    raise LesionsError(
        f"{layout.PARAMS}: {name} has no lines of its own under `networks:`. Write each network as "
        "the others are in the published file: its name, and its keys below."
    )


def _blocks(lines: list[str], name: str) -> Iterator[tuple[int, int]]:
    """Find the blocks of a network: the first line, and the line after the last, of each.

    A block starts with a key or list item that names the network, and has all deeper lines below.
    """
    names = re.compile(rf"(?<![\w-])(train-)?{re.escape(name)}(?![\w-])")
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.lstrip().startswith("#") or not names.search(line):
            number += 1
            continue
        yield number, _end(lines, number)
        number = _end(lines, number)


def _end(lines: list[str], start: int) -> int:
    """Find the end of a block: the first line that is empty or not deeper than the first."""
    end = start + 1
    while end < len(lines) and lines[end] and _indent(lines[end]) > _indent(lines[start]):
        end += 1
    return end


def _quoted(value: object) -> str:
    """Write a value for YAML: quoted, unless it is one word."""
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z]\w*|\d+", text) else json.dumps(text, ensure_ascii=False)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _renamed(line: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![\w-])(train-)?{re.escape(old)}(?![\w-])", rf"\g<1>{new}", line)


def _write(params: list[str], pipeline: list[str]) -> None:
    """Write both files, if they are still valid."""
    texts = {
        path: "\n".join(lines) + "\n"
        for path, lines in ((layout.PARAMS, params), (layout.PIPELINE, pipeline))
    }
    try:
        check_params(parse_yaml(texts[layout.PARAMS]))
        parse_yaml(texts[layout.PIPELINE])
    except ValueError as error:
        raise LesionsError(
            f"{layout.PARAMS}, {layout.PIPELINE}: would not be valid YAML ({error}). Nothing is "
            "changed; add the lines by hand."
        ) from None
    for path, text in texts.items():
        write_text(path, text)
