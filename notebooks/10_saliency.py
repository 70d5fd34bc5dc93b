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
# # One image, many maps: how much of what a map shows is the method's choice?
#
# **Question.** Where does one detector look in one image, and does the answer survive another
# method, target, layer, scale or number of views?
#
# The run must have kept its model, as the demo's do not: `save_model` in `02_train`, or
# `./run_all.sh --set save_model=true --results results/models`. Training images are not needed.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
run = "results/demo/runs/demo_parts/bracket/se/seed0"  # folder of a finished run
image = ""  # any image file; "": the run's anomalous test image with the highest score
views = 4  # rotated views that a map is the mean of
device = "auto"  # "auto", "cpu", "cuda" or "cuda:1"

# %%
from adnlib.model import AttentDifferNet
from adnlib.parameters import check_parameters, project_path
from adnlib.record import read_run

parameters = check_parameters(globals(), ["run", "image", "views", "device"])
found = read_run(project_path(parameters["run"]))
model = AttentDifferNet.load(found.folder, parameters["device"])
found

# %% [markdown]
# ## The image
#
# Scores of two runs are in different units. The percentile says how many of the run's normal test
# images have a lower score.

# %%
import torch

from adnlib.evaluation import percentiles
from adnlib.images import read_image, read_mask

size = model.settings.image_size
test = found.scores()
folder = found.image_folder([])
row = test[test["label"] == 1].nlargest(1, "score_last").iloc[0]
path = project_path(parameters["image"]) if parameters["image"] else folder / row["path"]
pixels = read_image(path, size)
masked = row["mask"] and not parameters["image"]
none = torch.zeros_like(pixels[0], dtype=torch.bool)
mask = read_mask(folder / row["mask"], size) if masked else none

# %%
score = model.score(pixels[None]).item()
normal = test.loc[test["label"] == 0, "score_last"]
print(f"{path.name}: score {score:.4g}, percentile {percentiles([score], normal)[0]:.0f}")

# %% [markdown]
# ## Methods
#
# All explain the same score. Each map has a colour scale of its own, since their units differ: the
# colours say where, not how much. *Gradient map* is what DifferNet's authors publish. EigenCAM
# knows nothing of the score: where it agrees with the others, they show what the network sees
# anyway.

# %%
from IPython.display import Image

from adnlib.explain import saliency
from adnlib.map_kinds import METHODS, TARGETS, Saliency
from adnlib.overlays import draw_maps


def explained(kind=None, views=parameters["views"], scale=None):
    return saliency(model, pixels[None], views, kind or Saliency(), scale)[0]


methods = {method.title: explained(Saliency(name)) for name, method in METHODS.items()}
Image(draw_maps(pixels, methods, mask))

# %% [markdown]
# In numbers: percent of each map's energy in the defect, against the defect's share of the image.
# An image without a mask has none of them.

# %%
import pandas as pd

from adnlib.explain import upsample
from adnlib.localization import energy_inside

defect = mask.numpy()[None]
shares = {
    title: energy_inside(upsample(heat[None], size).numpy(), defect)[0]
    for title, heat in methods.items()
}
table = pd.Series({**shares, "the defect's share of the image": defect.mean()})
table.mul(100).round(1) if defect.any() else "no mask says where a defect is"

# %% [markdown]
# ## Targets
#
# The *anomaly score* and the *negative log-likelihood* ask the whole detector; the *embedding's
# energy* asks the backbone alone, with its attention and without the flow.

# %%
targets = {t.title: explained(Saliency(target=name)) for name, t in TARGETS.items()}
Image(draw_maps(pixels, targets, mask))

# %% [markdown]
# ## Before and after attention
#
# The last layer before its attention block and behind it, then the layers that attention is set
# behind.

# %%
names = ["before", "last", *model.settings.attention_sites().values()]
layers = {f"layer {name}": explained(Saliency(layer=name)) for name in names}
Image(draw_maps(pixels, layers, mask))

# %% [markdown]
# ## Scales
#
# The network sees the image at several sizes. A map of the largest scale alone, as common code
# gives it, leaves out what the others add to the score.

# %%
scales = {f"{size // 2**k} px alone": explained(scale=k) for k in range(model.settings.scales)}
Image(draw_maps(pixels, {"all scales": explained(), **scales}, mask))

# %% [markdown]
# ## Views
#
# The score is a mean over rotated views, and so is the map. What one view shows and the mean does
# not is an accident of that angle.

# %%
counts = sorted({min(n, model.settings.test_views) for n in (1, 2, parameters["views"], 16)})
looks = {f"views: {count}": explained(views=count) for count in counts}
Image(draw_maps(pixels, looks, mask))

# %% [markdown]
# ## What can be concluded
#
# - One image shows how a map is read, not what a detector does: `05_gradcam` measures all of them,
#   against maps that have seen nothing.
# - A place that only one method, layer or view brings up says more about that choice than about the
#   detector.
# - A map says which places raised the score by its gradient; it does not say what the score would
#   be without them.
