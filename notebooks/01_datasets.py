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
# # Data sets: what lies in a folder
#
# **Question.** Which data sets and categories are there, are they complete, what do they look like,
# and could brightness alone tell good from anomalous?

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
data_root = "data/demo"  # a folder of data sets, one data set, or one category
pictures = 6  # shown of each category, from 1 up

# %%
from adnlib.parameters import check_parameters, project_path

parameters = check_parameters(globals(), ["data_root", "pictures"])

# %%
import matplotlib.pyplot as plt
import pandas as pd

from adnlib import datasets, inventory
from adnlib.catalogue import CATALOGUE, ImageCounts
from adnlib.demo import make_demo
from adnlib.errors import InputError
from adnlib.images import load_images, read_image
from adnlib.settings import check_positive
from adnlib.shortcuts import shortcut_table

check_positive(parameters, "pictures")
root = project_path(parameters["data_root"])
if root == project_path("data/demo"):
    make_demo(root)

# %% [markdown]
# ## The catalogue
#
# The data sets that adnlib knows by name (the paper's, DifferNet's MTD, ELPV and the demo sets),
# with their numbers of images where published (train good, test good, test anomalous), and where to
# get them. A set that is not listed here works just as well.

# %%
pd.DataFrame(
    {
        "data set": name,
        "category": category,
        "published images": str(counts or ""),
        "licence": info.licence,
        "page": info.page,
    }
    for name, info in CATALOGUE.items()
    for category, counts in (info.categories or {"any": None}).items()
)

# %% [markdown]
# ## What was found
#
# Counts of images, whether they are the published ones, what is odd, and what is missing.

# %%
found = inventory.take(root)
print(inventory.render(found))
with_images = [each.found for each in found.categories if each.counts != ImageCounts(0, 0, 0)]
if not with_images:
    raise InputError(f"{str(root)!r} holds no images of a category: give a folder of data sets.")

# %% [markdown]
# ## What brightness tells
#
# The mean (brightness) and the standard deviation (contrast) of an image's values, 0 to 255, in the
# mean over each kind of images; and AUROC in percent where it is taken for the anomaly score. Near
# 0 or 100, test images can be told without seeing a defect: a detector's AUROC then says little.

# %%
tables = {}
for place in with_images:
    samples = datasets.read_samples(place.folder, need_train=False)
    images, kept = load_images(place.folder, samples["path"].tolist(), 256, "skip")
    tables[place.dataset, place.category] = shortcut_table(samples.iloc[kept], images)
pd.concat(tables, names=["data set", "category", ""]).round(1)

# %% [markdown]
# ## Pictures
#
# Good ones first, then anomalous ones, evenly spread over each category's list.

# %%
from adnlib.figures import shrink

fig, axes = plt.subplots(
    len(with_images), pictures, figsize=(2 * pictures, 2.3 * len(with_images)), squeeze=False
)
for row, place in zip(axes, with_images, strict=True):
    samples = datasets.read_samples(place.folder, need_train=False)
    ordered = samples.sort_values("label", kind="stable").reset_index(drop=True)
    shown = datasets.at_even_steps(ordered, pictures)
    for axis, sample in zip(row, shown.itertuples(), strict=False):
        axis.imshow(read_image(place.folder / sample.path, 256).permute(1, 2, 0))
        shrink(axis.set_title(f"{place.category}\n{sample.split} {sample.defect}", size=7), 1.9)
for axis in axes.flat:
    axis.axis("off")
fig.tight_layout()
