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
# # Explore: on which images does a detector err?
#
# **Question.** What does one run's threshold find, what does it miss, and do the images tell why?
#
# Made from finished run folders and the data set's images: nothing is trained. As a page, without
# code: `voila notebooks/08_explore.ipynb`.

# %% tags=["parameters"]
results = "results"  # finished runs are looked for in it; or one of its folders

# %%
from adnlib.parameters import check_parameters

parameters = check_parameters(globals(), ["results"])

# %% [markdown]
# Name a folder, choose a run, and move the threshold: with the mouse, or image by image with the
# arrow keys. An image is called anomalous when its score is above the threshold. It begins where
# held-out good images put it, so that no test label has been looked at; moved to where the counts
# are best, it has seen them all, and the counts promise nothing for new images.

# %%
from adnlib.explorer import Explorer

explorer = Explorer(parameters["results"])
explorer

# %% [markdown]
# A map tells which places raised the score, not why. In JupyterLab, `explorer.misses()` gives all
# false alarms and all missed anomalies as two tables.
