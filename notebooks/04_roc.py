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
# # ROC curves: at what cost in false alarms does a detector find the anomalies?
#
# **Question.** How many anomalous images are found at how many false alarms, and do DifferNet and
# AttentDifferNet differ by more than their seeds do?
#
# Made from the scores in finished run folders: nothing is trained.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where figures/ is written
dataset = "demo_parts"  # a data set that there are runs of

# %%
from adnlib.parameters import check_parameters, project_path

parameters = check_parameters(globals(), ["results", "dataset"])

# %% [markdown]
# ## Draw
#
# One panel per category, one line per variant. A line is the mean over seeds of the true positive
# rate at each false positive rate; its band reaches from the lowest to the highest seed. The
# scores are those of the last epoch.

# %%
from IPython.display import Image

from adnlib import figures

png, pdf = figures.draw_roc(project_path(parameters["results"]), parameters["dataset"])
png, pdf

# %%
Image(filename=str(png), width=800)

# %% [markdown]
# The legend gives AUROC in percent, mean and standard deviation over seeds, as `tables/auroc.csv`
# does. Where two bands overlap, the seeds alone could have made the difference.
