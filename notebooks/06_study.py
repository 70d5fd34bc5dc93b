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
# # What is attention worth, and could chance have made it?
#
# **Question.** Does AttentDifferNet beat plain DifferNet by more than seeds and test images vary,
# and how much does the choice of the epoch alone add?
#
# Made from the scores in finished run folders: nothing is trained.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where tables/ and figures/ are written

# %%
from adnlib.parameters import check_parameters, project_path

parameters = check_parameters(globals(), ["results"])

# %% [markdown]
# ## Compute
#
# `statistics.csv` has AUROC with its interval, average precision, best F1 and the false positive
# rate at 95 % recall. `paired.csv` has the differences to plain DifferNet with the same seeds and
# test images; `delong.csv` DeLong's test for each pair of runs. `choice.csv` has what the choice of
# the epoch alone adds to the last epoch's AUROC: what "best on test" adds, which looks at the test
# labels, is no property of any method.

# %%
from IPython.display import Image, Markdown

from adnlib import forest, records, study

folder = project_path(parameters["results"])
*_, delong, _, text = study.write_study(folder)

# %%
Markdown(text.read_text(encoding="utf-8"))

# %% [markdown]
# ## Differences
#
# Where an interval contains zero, the data cannot tell this variant from plain DifferNet. Two or
# three seeds make the intervals too narrow, so that the reverse is weaker evidence than it looks.

# %%
pictures = forest.draw_paired(folder)
Image(
    filename=str(pictures[0]), width=900
) if pictures else "no variant stands beside plain DifferNet"

# %% [markdown]
# ## DeLong's test of single runs
#
# How many of the pairs of runs differ at p < 0.05, last epoch, and in which direction. With many
# pairs one in twenty does so by chance.

# %%
tests = records.read_tidy(delong).query("epoch_selection == 'last'")
verdict = tests["difference"].gt(0).map({True: "better", False: "worse"})
verdict = verdict.where(tests["p"] < 0.05, "no difference").rename("than DifferNet")
counts = tests.groupby(["dataset", "method", verdict]).size().rename("pairs of runs").to_frame()
counts if len(counts) else "no variant stands beside plain DifferNet"
