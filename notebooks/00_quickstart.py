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
# # Quickstart: a detector in three minutes
#
# **Question.** Can a network that has only seen good parts tell a scratched one from a good one,
# and where does it look?
#
# Everything here runs on a CPU, on images that the project draws itself. The settings are small so
# that it is quick; `02_train` has the paper's.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
dataset = "demo_parts"  # or "demo_outdoor", "demo_wafer"
attention = "none"  # DifferNet; "se" or "cbam" for AttentDifferNet
epochs = 6
batch_images = 4  # the paper has 24; fewer make more steps of the same time
image_size = 256  # px; the paper has 448
flow_width = 512  # the paper has 2048
test_views = 8  # the paper has 64
weights = "imagenet"  # or a file, or "random"
save_to = "results/quickstart"

# %%
from adnlib.parameters import check_parameters, project_path

known = ["dataset", "attention", "epochs", "batch_images", "image_size", "flow_width"]
parameters = check_parameters(globals(), [*known, "test_views", "weights", "save_to"])

# %%
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from adnlib import AttentDifferNet
from adnlib.datasets import read_samples
from adnlib.demo import DEMO_SETS, make_demo
from adnlib.evaluation import roc
from adnlib.explain import saliency
from adnlib.histogram import set_score_axis
from adnlib.images import load_images, read_image
from adnlib.overlays import overlay
from adnlib.settings import check_names

sns.set_theme(style="whitegrid", palette="colorblind")

# %% [markdown]
# ## Images
#
# A folder as MVTec AD has it: `train/good`, `test/good`, and `test/<defect>`.

# %%
check_names([dataset], DEMO_SETS, "demo set")
root = project_path("data/demo")
make_demo(root)
folder = root / dataset / DEMO_SETS[dataset]
samples = read_samples(folder)
samples.groupby(["split", "defect"]).size().rename("images").to_frame().T

# %% [markdown]
# ## Train
#
# `fit` takes a folder; only good images are looked at. Your own folder of good images works as
# well. A tenth of them is held out, and their scores give the threshold.

# %%
model = AttentDifferNet(
    attention=attention,
    epochs=epochs,
    batch_images=batch_images,
    image_size=image_size,
    flow_width=flow_width,
    test_views=test_views,
    weights=weights,
)
model


# %%
def tell(epoch):
    print(f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, {epoch.seconds:.0f} s")


model.fit(folder, on_epoch=tell)

# %% [markdown]
# ## Score, and draw the ROC curve
#
# A score is how far an image lies from what good ones look like: the higher, the more anomalous.
# The dashed line is the threshold, which has not seen these images.

# %%
test = samples[samples["split"] == "test"]
images, _ = load_images(folder, test["path"].tolist(), image_size)
scores = model.score(images).numpy()
curve = roc(test["label"], scores)
print(f"AUROC {100 * curve['auroc']:.1f} %")
print(model.threshold.sentence)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.plot(curve["fpr"], curve["tpr"], drawstyle="steps-post")
left.plot([0, 1], [0, 1], ":", color="gray")
left.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
sns.stripplot(x=scores, y=test["defect"].to_numpy(), hue=test["defect"].to_numpy(), ax=right)
right.axvline(model.threshold.value, color="gray", linestyle="--")
right.set(xlabel="anomaly score", ylabel="")
set_score_axis(right)
fig.tight_layout()

# %% [markdown]
# ## One image
#
# The good and the anomalous image with the median score: neither the best nor the worst case.
# Grad-CAM of the score tells which places raised it. The colours of both pictures are on one scale,
# so the good part glows only where it would be as suspicious as the anomalous one.

# %%
ranked = test.iloc[np.argsort(scores)]
good, anomalous = (
    folder / paths.iloc[len(paths) // 2]
    for paths in (ranked.loc[ranked["label"] == label, "path"] for label in (0, 1))
)
for path in (good, anomalous):
    print(f"{path.parent.name}/{path.name}: score {model.score([path]).item():.3f}")

# %%
pair = [read_image(path, image_size) for path in (good, anomalous)]
maps = [saliency(model, image[None])[0].numpy() for image in pair]
fig, axes = plt.subplots(2, 2, figsize=(6, 6))
for i, name in enumerate(["good", anomalous.parent.name]):
    axes[0, i].imshow(pair[i].permute(1, 2, 0))
    axes[0, i].set_title(name)
    axes[1, i].imshow(overlay(pair[i], maps[i], scale=np.max(maps)))
for axis in axes.flat:
    axis.axis("off")
fig.tight_layout()

# %% [markdown]
# ## Keep it
#
# The saved folder rebuilds the model anywhere: `AttentDifferNet.load("my_model")`.

# %%
saved = project_path(save_to)
model.save(saved)
again = AttentDifferNet.load(saved).score(images).numpy()
assert np.array_equal(again, scores)

# %% [markdown]
# ## From here
#
# - `01_datasets`: what lies in a data folder, and how it compares with the published data sets.
# - `02_train`: one run with all settings, as papermill runs it for every cell of a grid.
# - `./run_all.sh` runs the whole grid; `03_tables`, `04_roc` and `05_gradcam` show what came out.
