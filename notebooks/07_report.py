# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # DifferNet with and without attention: report
#
# **Question.** What came out of the runs of one results folder: how well do the detectors work,
# where do they look, how sure is it, and what ran where for how long?
#
# Every number here is made from finished run folders. *Selected*: the epoch with the lowest loss of
# held-out good images. *Best on test* looks at the test labels, as DifferNet's published code does,
# and is too good by construction.
#
# [Summary](#Summary) · [AUROC by category](#AUROC-by-category) ·
# [How sure the numbers are](#How-sure-the-numbers-are) · [ROC curves](#ROC-curves) ·
# [Where the detectors look](#Where-the-detectors-look) ·
# [What ran](#What-ran,-where,-and-for-how-long)

# %% [markdown] tags=["notebook-only"]
# ## Parameters
#
# `./run_all.sh` turns this notebook into `report.html`, without its code.

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs, tables and figures are reported

# %%
from adnlib.parameters import check_parameters, project_path

parameters = check_parameters(globals(), ["results"])

# %%
from IPython.display import Image, Markdown, display

from adnlib import overview, records, report, tables
from adnlib.comparison import auroc_table

folder = project_path(parameters["results"])
found = records.read_runs(folder)
table = auroc_table(found, records.asked_seeds(folder))

# %% [markdown]
# ## Summary

# %%
for sheet in (overview.summary_sheet(found, table), *overview.published_sheets(found, table)):
    display(Markdown(tables.markdown(sheet)))

# %%
missing = overview.unfinished(folder)
listed = "\n".join(f"- {line}" for line in missing)
whole = "All runs that were asked for are finished." if records.asked_cells(folder) else ""
Markdown(f"### Not finished ({len(missing)})\n\n{listed}" if missing else whole)

# %% [markdown]
# ## AUROC by category

# %%
for sheet in report.auroc_sheets(found, table).values():
    display(Markdown(tables.markdown(sheet)))

# %% [markdown]
# ## How sure the numbers are
#
# Where an interval contains zero, the data cannot tell this variant from plain DifferNet.

# %%
written = sorted((folder / "tables").glob("statistics.md"))
for text in written:
    display(Markdown(text.read_text(encoding="utf-8").partition("\n")[2]))
if not written:
    display(Markdown("Not computed yet: `06_study` does it."))

# %%
for picture in sorted((folder / "figures").glob("paired.png")):
    display(Image(str(picture), alt="differences to DifferNet with their intervals"))

# %% [markdown]
# ## ROC curves

# %%
drawn = sorted((folder / "figures").glob("roc_*.png"))
for picture in drawn:
    display(Image(str(picture), alt=f"ROC curves of {picture.stem[4:]}"))
if not drawn:
    display(Markdown("Not drawn yet: `04_roc` does it."))

# %% [markdown]
# ## Where the detectors look

# %%
mapped = tuple(f"gradcam_{run.dataset}" for run in found if any(run.folder.glob("maps*.npz")))
pictures = sorted((folder / "figures").glob("gradcam_*.png"))
drawn = [picture for picture in pictures if picture.stem.startswith(mapped)]
for picture in drawn:
    display(Image(str(picture), alt=f"Grad-CAM of {picture.stem[8:]}"))
if not drawn:
    display(Markdown("Not drawn yet: `05_gradcam` does it where runs made maps."))

# %% [markdown]
# How much of the maps lies on defects and objects, over all test images that have a mask, beside
# maps that have seen nothing.

# %%
for text in sorted((folder / "tables").glob("localization_*.md")):
    display(Markdown(text.read_text(encoding="utf-8").partition("\n")[2]))

# %% [markdown]
# ## What ran, where, and for how long

# %%
Markdown(tables.markdown(overview.ran_sheet(found)))

# %%
Markdown("Versions: " + "; ".join(overview.versions(found)) + ".")
