# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Grad-CAM: where do the detectors look?
#
# **Question.** Does attention move the detector's eye from the background to the object, or to
# the defect, as the paper's figures show?
#
# Made from the maps in finished run folders and the data set's images: nothing is trained.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where figures/ is written
dataset = "demo_parts"  # a data set that there are runs of
anomalous = 0  # anomalous images a category; 0: three, or one from six categories on

# %%
from adnlib import runs

parameters = runs.check_parameters(globals(), ["results", "dataset", "anomalous"])

# %% [markdown]
# ## Draw
#
# The images are chosen by a rule, not by taste: the normal image with the median score, and
# anomalous images at even steps from the one that attention helped most to the one that it helped
# least.
#
# Each row of a category has one colour scale for all its images, which ends at a high percentile
# of all test maps. So a normal image glows only where its map is as strong as an anomalous one's.

# %%
import pandas as pd
from IPython.display import Image

from adnlib import heatmaps

folder = runs.project_path(parameters["results"])
png, pdf, images = heatmaps.draw_gradcam(folder, parameters["dataset"], parameters["anomalous"])
png, pdf, images

# %%
Image(filename=str(png), width=900)

# %% [markdown]
# ## The images, and why these
#
# `percentile`: share of the normal test images' scores that lie below the image's own. `gain`:
# how much higher it is with attention.

# %%
pd.read_csv(images).drop(columns=["dataset", "mask"])
