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
# # In the wild: what do blur, noise and another background do to the scores?
#
# **Question.** How far does AUROC fall when test images are worse than those that a detector was
# trained on, does attention make it fall less, and what becomes of the threshold?
#
# Made from the models in finished run folders and the data set's images: nothing is trained. The
# runs must have kept their models, as the demo's do not: `save_model` in `02_train`, or
# `./run_all.sh --set save_model=true --results results/models`.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where tables/ and figures/ are written
dataset = "demo_outdoor"  # a data set that there are runs of
corruptions = "all"  # or some of them, such as "blur, background"
severities = "all"  # or some of 1 to 5, such as "1 3 5"
views = 0  # views that a score is the mean of; 0: the model's own number
images = 0  # good test images of a category, and anomalous ones, at even steps; 0: all
device = "auto"  # "auto", "cpu", "cuda" or "cuda:1"

# %%
import dataclasses

from adnlib import robustness
from adnlib.parameters import check_parameters, project_path

chosen = [field.name for field in dataclasses.fields(robustness.Measurement)]
parameters = check_parameters(globals(), ["results", "dataset", *chosen])
asked = robustness.Measurement(**{name: parameters[name] for name in chosen})
folder = project_path(parameters["results"])

# %% [markdown]
# ## The corruptions
#
# Each acts on the image at the size that the model sees. Severities go from hardly seen to worse
# than a camera at work should give; the idea is ImageNet-C's
# ([arXiv:1903.12261](https://arxiv.org/abs/1903.12261)), the values are this project's. Sigma is a
# Gaussian's deviation, as a share of the image's side (blur) or of white (noise). The factor is of
# every pixel, a crop keeps a share of the side, and the weight is that of other colours over the
# background.

# %%
import pandas as pd

from adnlib.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pd.DataFrame(
    [[kind.parameter, *map(kind.of, SEVERITIES)] for kind in CORRUPTIONS.values()],
    index=[kind.title for kind in CORRUPTIONS.values()],
    columns=["parameter", *SEVERITIES],
)

# %% [markdown]
# One image, the first anomalous one of the first run, under each of those asked for. Severity 0 is
# the image as it is.

# %%
import torch

from adnlib.images import read_image
from adnlib.records import read_runs

run = read_runs(folder, parameters["dataset"])[0]
scores = run.scores()
path = scores.loc[scores["label"] == 1, "path"].iloc[0]
image = read_image(run.image_folder([path]) / path, run.settings["image_size"])[None]
columns = [0, *asked.chosen_severities]
sheet = {
    kind: torch.cat([corrupt(image, [path], kind, severity) for severity in columns])
    for kind in asked.chosen_corruptions
}

# %%
import matplotlib.pyplot as plt

fig, rows = plt.subplots(len(sheet), 1, figsize=(9, 1.5 * len(sheet)), squeeze=False)
for axes, (kind, pictures) in zip(rows[:, 0], sheet.items(), strict=True):
    axes.imshow(torch.cat([*pictures], dim=2).permute(1, 2, 0), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(CORRUPTIONS[kind].title, rotation=0, ha="right", va="center")
middles = [(position + 0.5) * image.shape[-1] for position in range(len(columns))]
axes.set_xticks(middles, columns)
axes.set_xlabel("severity")
fig.tight_layout()

# %% [markdown]
# ## What is taken for background
#
# No mask is known: what joins the border and has its colours is taken for background. The rule
# errs towards the object, and parts of a busy scene stay as they are; a texture would be all
# background. So see what share of the image changes, and look at the row above.

# %%
from adnlib.background import background_share

test = scores.groupby("label").head(10)
pictures = [read_image(run.image_folder([p]) / p, image.shape[-1]) for p in test["path"]]
shares = pd.Series(100 * background_share(torch.stack(pictures)).numpy(), test["defect"])
shares.describe().round(1).rename("percent of the image").to_frame().T

# %% [markdown]
# ## Measure
#
# Every model sees the same pixels: what is drawn for an image depends on its name, not on the run.
# Scores are those of `AttentDifferNet.score`, at the same angles for every image. They are kept in
# the run's folder (`robustness.json`), so that this cell goes on where it was interrupted.
#
# Each line gives AUROC from severity 0 on.

# %%
table = robustness.measure(folder, parameters["dataset"], asked)

# %% [markdown]
# `run_auroc` is the AUROC that the run itself reported: all its test images, with angles drawn for
# each of them. AUROC at severity 0 differs from it by the choice of angles alone, unless fewer
# images or views were asked for.

# %%
untouched = table[table["severity"] == 0].drop_duplicates(["category", "variant", "seed"])
names = ["category", "method", "seed", "auroc", "run_auroc", "good", "anomalous", "held_out"]
untouched[names].round(2)

# %% [markdown]
# ## AUROC against severity
#
# Over the categories and seeds that every variant was measured with.

# %%
from IPython.display import Image, Markdown

from adnlib import decline

png, pdf = decline.draw_decline(folder, parameters["dataset"])
Image(filename=str(png), width=900)

# %% [markdown]
# Points of AUROC that a variant has more than at severity 0 (below 0: what it loses), mean over
# corruptions, categories and seeds. What all corruptions have in common hides what one of them
# does; the figure above does not.

# %%
compared = decline.of_all_variants(table)
compared.pivot_table(index="method", columns="severity", values="difference", sort=False).round(2)

# %% [markdown]
# ## What becomes of the threshold
#
# AUROC asks whether anomalous images still lie above good ones *of the same corruption*. A detector
# at work has one threshold, set on clean images. Where all scores rise, AUROC may hold up while
# every good image is called anomalous; where they fall, nothing is found.

# %%
drawn = decline.draw_decline(folder, parameters["dataset"], "false_alarms")
Image(filename=str(drawn[0]), width=900) if drawn else "no held-out images, so no threshold"

# %% [markdown]
# How far the median score of good images moves, that of the untouched ones being 1.

# %%
compared.pivot_table(
    index=["corruption", "method"], columns="severity", values="good_score", sort=False
).round(2)

# %% [markdown]
# ## The tables

# %%
text = decline.write_sheets(folder, parameters["dataset"])
Markdown(text.read_text(encoding="utf-8"))

# %% [markdown]
# ## What can be concluded
#
# - A line that falls says how much of the detector's power that corruption takes, on these images.
#   A difference between two lines is worth what their bands leave of it: with one seed there is no
#   band, and a few points between variants may be the seed's.
# - A variant that starts higher may fall further and still be better: compare both the level and
#   the loss.
# - AUROC below 50 % says that the corruption ranks good images above anomalous ones, not that the
#   detector could be turned around. A crop may cut the defect off: then the label is wrong, and no
#   detector could keep its AUROC.
# - Corruptions are made of clean images by a program. They say in which direction a detector is
#   weak; how much it loses in a given place, only images from there can say.
# - On demo images all of it shows that the machinery works, and nothing about the paper's claim.
