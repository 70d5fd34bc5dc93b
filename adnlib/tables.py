"""Tables of text as Markdown, LaTeX or plain lines, and the files that hold tables.

Knows nothing of AUROC: `report` fills a `Sheet`, this module sets it.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adnlib.errors import writing

_WIDTH = 100  # characters of a terminal's line
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
}


class Best(str):
    """The text of a cell that is the best of its row."""


@dataclass(frozen=True)
class Sheet:
    """A titled table.

    `rows` holds as many cells as `header` has names; the first `names` columns hold words, the
    others numbers. The last `closing` rows (a mean) stand below a line where the form has one.
    `alert` is what nobody may overlook.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    alert: str = ""
    names: int = 1
    closing: int = 0
    notes: list[str] = field(default_factory=list)


def write(folder: Path, files: Mapping[str, Any]) -> list[Path]:
    """Write strings as they are, and data frames as CSV, into files of a folder; their paths.

    Raises:
        InputError: it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if isinstance(content, str):
                (folder / name).write_text(content, encoding="utf-8")
            else:
                content.to_csv(folder / name, index=False, float_format="%.4f")
    return [folder / name for name in files]


def document(title: str, sheets: Iterable[Sheet]) -> str:
    """Sheets as one file of Markdown."""
    return "\n".join([f"# {title}\n", *map(markdown, sheets)])


def markdown(sheet: Sheet) -> str:
    """The sheet as GitHub Markdown: heading, alert, table, caption, notes."""
    lines = [f"### {sheet.title}", ""]
    if sheet.alert:
        lines += [f"> **{sheet.alert}**", ""]
    body = [
        [f"**{cell}**" if isinstance(cell, Best) else cell for cell in row] for row in sheet.rows
    ]
    cells = [[text.replace("|", r"\|") for text in row] for row in [sheet.header, *body]]
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    set_rows = [_aligned(row, widths, sheet.names) for row in cells]
    rule = [
        f":{'-' * (width - 1)}" if column < sheet.names else f"{'-' * (width - 1)}:"
        for column, width in enumerate(widths)
    ]
    lines += [f"| {' | '.join(row)} |" for row in [set_rows[0], rule, *set_rows[1:]]]
    lines += ["", sheet.caption, "", *(f"- {note}" for note in sheet.notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(sheet: Sheet, label: str) -> str:
    """The sheet as a floating LaTeX table; needs the packages booktabs and graphicx."""
    alert = rf"\textbf{{{escaped(sheet.alert)}}} " if sheet.alert else ""
    body = [
        " & ".join(
            rf"\textbf{{{escaped(cell)}}}" if isinstance(cell, Best) else escaped(cell)
            for cell in row
        )
        + r" \\"
        for row in sheet.rows
    ]
    if sheet.closing and len(body) > sheet.closing:
        body.insert(len(body) - sheet.closing, r"\midrule")
    wide = len(sheet.header) > 4
    notes = [rf"\par\footnotesize {escaped(note)}" for note in sheet.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{alert}{escaped(sheet.title)}. {escaped(sheet.caption)}}}",
            rf"\label{{{label}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{{'l' * sheet.names}{'r' * (len(sheet.header) - sheet.names)}}}",
            r"\toprule",
            " & ".join(escaped(name) for name in sheet.header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}" + "}" * wide,
            *notes,
            r"\end{table}",
            "",
        ]
    )


def plain(sheet: Sheet) -> str:
    """The sheet for a terminal; `<` marks the best of a row."""
    names = [textwrap.wrap(name, 16) for name in sheet.header]
    lines_of_names = itertools.zip_longest(*names, fillvalue="")
    body = [
        [f"{cell} {'<' if isinstance(cell, Best) else ' '}" for cell in row] for row in sheet.rows
    ]
    cells = [*([f"{part}  " for part in line] for line in lines_of_names), *body]
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    lines = textwrap.wrap(sheet.title, _WIDTH)
    lines += textwrap.wrap(f"!!! {sheet.alert}", _WIDTH) if sheet.alert else []
    lines += [" ".join(_aligned(row, widths, sheet.names)).rstrip() for row in cells]
    mark = (
        " < best of a row."
        if any(isinstance(cell, Best) for row in sheet.rows for cell in row)
        else ""
    )
    return "\n".join([*lines, *textwrap.wrap(sheet.caption + mark, _WIDTH)]) + "\n"


def escaped(text: str) -> str:
    """The text with LaTeX's special characters, and the signs `±` and `†`, as commands."""
    return "".join(_TEX.get(character, character) for character in text)


def _aligned(row: list[str], widths: list[int], names: int) -> list[str]:
    """Words to the left, numbers to the right."""
    return [
        text.ljust(width) if column < names else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
