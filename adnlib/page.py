"""An executed notebook as one self-contained HTML page: its words and results without its code.

Readable on a phone and in print; pictures lie in the page, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

NOTEBOOK_ONLY = "notebook-only"
"""Tag of the cells that the page leaves out."""


def write_page(notebook: Path, page: Path, title: str) -> None:
    """Write the page of a notebook with its outputs.

    Args:
        notebook: an executed notebook.
        page: where the HTML goes.
        title: what the browser calls it.
    """
    settings = Config()
    settings.TagRemovePreprocessor.enabled = True
    settings.TagRemovePreprocessor.remove_cell_tags = {NOTEBOOK_ONLY}
    with resources.as_file(resources.files("adnlib").joinpath("templates")) as templates:
        exporter = HTMLExporter(
            config=settings,
            template_name="page",
            extra_template_basedirs=[str(templates)],
            exclude_input=True,
            exclude_input_prompt=True,
            exclude_output_prompt=True,
        )
        content = nbformat.read(notebook, as_version=4)
        html, _ = exporter.from_notebook_node(content, {"metadata": {"name": title}})
    page.write_text(html, encoding="utf-8")
