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
# **Question.** Which data sets and categories are there, are they complete, and what do they look
# like?

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

from adnlib import datasets
from adnlib.demo import make_demo
from adnlib.images import read_image
from adnlib.masks import check_masks
from adnlib.settings import check_positive

check_positive(parameters, "pictures")
root = project_path(data_root)
if root == project_path("data/demo"):
    make_demo(root)

# %% [markdown]
# ## The catalogue
#
# The paper's data sets with their published numbers of images (train good, test good, test
# anomalous), and where to get them. A set that is not listed here works just as well.

# %%
pd.DataFrame(
    {
        "data set": name,
        "category": category,
        "published images": str(counts or ""),
        "licence": info.licence,
        "page": info.page,
    }
    for name, info in datasets.CATALOGUE.items()
    for category, counts in (info.categories or {"any": None}).items()
)

# %% [markdown]
# ## What was found
#
# Counts of images, and a remark where they differ from the published ones.

# %%
tables = {
    (found.dataset, found.category): (
        found.folder,
        datasets.read_samples(found.folder, need_train=False),
    )
    for found in datasets.find(root)
}
everything = pd.concat(
    samples.assign(dataset=dataset, category=category)
    for (dataset, category), (_, samples) in tables.items()
)
everything.groupby(["dataset", "category", "split", "defect"]).size().rename("images").to_frame()

# %%
for (dataset, category), (folder, samples) in tables.items():
    for warning in (
        datasets.check_counts(dataset, category, samples),
        check_masks(folder, samples),
    ):
        print(warning or f"{dataset}/{category}: as expected")

# %% [markdown]
# ## Pictures
#
# Good ones first, then anomalous ones, evenly spread over each category's list.

# %%
fig, axes = plt.subplots(
    len(tables), pictures, figsize=(2 * pictures, 2.3 * len(tables)), squeeze=False
)
for row, ((_, category), (folder, samples)) in zip(axes, tables.items(), strict=True):
    ordered = samples.sort_values("label", kind="stable").reset_index(drop=True)
    shown = datasets.at_even_steps(ordered, pictures)
    for axis, sample in zip(row, shown.itertuples(), strict=False):
        axis.imshow(read_image(folder / sample.path, 256).permute(1, 2, 0))
        axis.set_title(f"{category}\n{sample.split} {sample.defect}", fontsize=9)
for axis in axes.flat:
    axis.axis("off")
fig.tight_layout()
