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
# # Tables: AUROC beside the published numbers
#
# **Question.** Which image-level AUROC do DifferNet and AttentDifferNet reach on each category,
# and how does that compare with what was published?
#
# Made from finished run folders and the published numbers alone: nothing is trained, so this
# notebook can be run at any time, also while a grid is still under way.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where tables/ is written

# %%
from adnlib.parameters import check_parameters, project_path

parameters = check_parameters(globals(), ["results"])

# %% [markdown]
# ## Write the tables
#
# `auroc.csv` is tidy and complete, `auroc.md` is for reading, `auroc.tex` for a paper. Runs that
# are not finished, or damaged, are left out and named.

# %%
import pandas as pd
from IPython.display import Markdown

from adnlib import records, report

csv, md, tex = report.write_tables(project_path(parameters["results"]))
csv, md, tex

# %% [markdown]
# ## AUROC beside the published numbers
#
# Up to four tables for each data set. The *last epoch* is decided before the test set is seen. The
# epoch with the lowest *loss of held-out good images*, where some were held out, is chosen without
# the test set too. The *best epoch on the test set* looks at the test labels, as DifferNet's
# published code does, and is too good by construction. The last table is of scores averaged over
# the last evaluations: three, or as many as a short training has.

# %%
Markdown(md.read_text(encoding="utf-8"))

# %% [markdown]
# ## How much the choice of the epoch is worth
#
# Points of AUROC that the best epoch on the test set has over the last one. A gain of attention
# that is smaller than this may be no gain at all.

# %%
table = records.read_tidy(csv)
keys = ["dataset", "category"]
means = table.pivot_table(
    index=keys, columns=["epoch_selection", "method"], values="mean", sort=False
)
means = means.reindex(pd.MultiIndex.from_frame(table[keys].drop_duplicates()))
(means["best_on_test"] - means["last"]).round(2)

# %% [markdown]
# What attention adds is in `06_study`, which compares runs with the same seed.
