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
# # One run: train a detector, and see how well it tells good from anomalous
#
# **Question.** How well does DifferNet, with or without attention, separate the good test images of
# one category from the anomalous ones, when it has seen good images only?
#
# Papermill runs this notebook once for each cell of a grid; by hand, change the parameters and run
# it from top to bottom. Everything that it finds goes into one folder.

# %% [markdown]
# ## Parameters
#
# The defaults are the paper's settings where they are known (`REPRODUCING.md` says which are
# inferred). `adnlib settings` says what each one means.

# %% tags=["parameters"]
# data
dataset = "demo_parts"
category = "bracket"
data_root = "data/demo"
results = "results/notebook"
on_bad_image = "stop"  # or "skip"
# embedding
attention = "none"  # or "se", "cbam", "eca", "coordinate", "simam", "identity", "constant"
attention_reduction = 16
attention_kernel = 7
attention_residual = False
attention_open = False
attention_gate = 0.5  # of "constant"
attention_place = "figure"  # or "relu", "pool"
attention_stages = "all"  # or some, such as "1,5"
backbone = "alexnet"  # or "resnet18", "wide_resnet50_2", "efficientnet_b0"
image_size = 448  # px
scales = 3
weights = "imagenet"  # or a file, or "random"
precision = "fp32"  # of the convolutions; or "tf32", "fp16", "bf16"
# flow
flow_blocks = 8
flow_width = 2048
flow_clamp = 3.0
flow_bound = 1e6
standardize = False  # features, before the flow
# training
seed = 0
epochs = 192
batch_images = 24
train_views = 4
view_bank = 0  # rotations of an image to keep and draw from; 0: new ones in each batch
max_angle = 180.0  # degrees
learning_rate = 2e-4
adam_beta1 = 0.8
adam_beta2 = 0.8
adam_eps = 1e-4
weight_decay = 1e-5
attention_training = "joint"  # or "frozen"
attention_rate = 1.0  # times learning_rate
flow_average = 0.0  # decay of a moving average of the weights
# testing
evaluate_every = 8  # epochs
holdout = 0.1  # share of the good training images
test_views = 64
test_angles = "random"  # or "even", "grid"
map_views = 4
# machine
memory_budget = 0.0  # GB of memory for images, the rest on disk; 0: a quarter of the machine's
device = "auto"  # or "cpu", "cuda", "cuda:1"
save_model = False

# %%
from adnlib.parameters import check_parameters
from adnlib.run_settings import DEFAULTS, Settings
from adnlib.runs import Run

parameters = check_parameters(globals(), DEFAULTS)
settings = Settings(**parameters)

# %%
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch

from adnlib.histogram import COLOURS, KINDS, set_score_axis
from adnlib.provenance import describe_device
from adnlib.report import SELECTION_NAMES

sns.set_theme(style="whitegrid", palette="colorblind")

# %% [markdown]
# ## Data
#
# The run takes its folder, so that no other process writes there, and reads the table of images.

# %%
run = Run(settings)
print(f"{run.folder}\n{describe_device(run.model.device)}, torch {torch.__version__}")
run.samples.groupby(["split", "defect"]).size().rename("images").to_frame().T

# %%
run.load_images()
good, test = run.images("train"), run.images("test")
first, last = good[:4], test[-4:]
shown = torch.cat([first, last])
fig, axes = plt.subplots(1, len(shown), figsize=(12, 1.8))
for i, (axis, image) in enumerate(zip(axes, shown, strict=True)):
    axis.imshow(image.permute(1, 2, 0))
    axis.set_title("train" if i < len(first) else "test", fontsize=9)
    axis.axis("off")

# %% [markdown]
# ## Training
#
# In each epoch the flow sees every training image at a few random angles. Held-out and test images
# are scored every few epochs. Three of these evaluations are reported: the *last*; the *selected*
# one, where held-out good images have their lowest loss; and the *best on test*, which DifferNet
# reports and which looks at the test labels. Beside them stand scores *averaged* over the last
# evaluations.

# %%
run.model

# %%
run.train()

# %% [markdown]
# One point for each look. The loss is in nats per feature, without the Gaussian's constant. A
# *feature variance* that falls by orders of magnitude shows attention that makes all images alike:
# the loss falls with it, and AUROC need not rise (`REPRODUCING.md`).

# %%
labels = {
    "holdout_loss": "loss, held-out images",
    "test_auroc": "test AUROC, percent",
    "feature_variance": "feature variance",
}
told = run.history.assign(test_auroc=100 * run.history["test_auroc"])
shown = told[[*labels]].dropna(axis=1).columns
fig, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3))
for axis, column in zip(axes, shown, strict=True):
    sns.lineplot(told, x="epoch", y=column, marker="o", ax=axis)
    axis.set_ylabel(labels[column])
    axis.xaxis.get_major_locator().set_params(integer=True)
fig.tight_layout()

# %% [markdown]
# ## Scores
#
# Histogram of the test images' scores at the last epoch; anomalous ones should lie to the right.
# Either kind's bars add up to 100 %.

# %%
axis = sns.histplot(
    x=run.scores["score_last"],
    hue=run.scores["label"].map(dict(enumerate(KINDS))).rename("image"),
    palette=COLOURS,
    log_scale=True,
    element="step",
    stat="percent",
    common_norm=False,
)
axis.set(xlabel="anomaly score (last epoch)", ylabel="percent of the images of its kind")
set_score_axis(axis)

# %% [markdown]
# ## Where it looks
#
# Grad-CAM of the anomaly score. The maps of all test images are kept for the figure notebook.

# %%
if settings.map_views:
    run.explain()

# %% [markdown]
# ## Result
#
# `metrics.json` is written last: from here on the run counts as done. It has the chosen epochs, the
# numbers of images, the time, and the AUROC that brightness or contrast alone would have, too.

# %%
metrics = run.finish()
aurocs = {
    name: round(100 * metrics[f"auroc_{which}"], 2)
    for which, name in SELECTION_NAMES.items()
    if f"auroc_{which}" in metrics
}
pd.Series(aurocs).rename("AUROC in percent").to_frame()
