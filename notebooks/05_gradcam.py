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
# # Grad-CAM: where do the detectors look?
#
# **Question.** Does attention move the detector's eye from the background to the object, or to
# the defect, as the paper's figures show?
#
# Made from the maps in finished run folders and the data set's test images: nothing is trained,
# and training images are not needed. `10_saliency` shows one image in every way.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
results = "results/demo"  # folder whose runs are read, and where figures/ and tables/ are written
dataset = "demo_parts"  # a data set that there are runs of
anomalous = 0  # anomalous images a category; 0: three, or one from six categories on
named = ""  # instead: a CSV file with the columns category and path, such as a figure's own list
method = "gradcam"  # or "gradcam++", "layercam", "eigencam", "gradient"
target = "score"  # or "loss", "energy"
layer = "last"  # of the network; or "before" its attention block, or a name (a wrong one lists all)
photographs = True  # False: silhouettes in their place, for images that may not be shown
colours = "jet"  # the paper's; or "viridis", which grey print and colour blindness keep in order
guess_object = False  # where no mask has the object, take what the background's colours leave

# %%
import dataclasses

from adnlib.map_kinds import Saliency
from adnlib.parameters import check_parameters, project_path

chosen = [field.name for field in dataclasses.fields(Saliency)]
drawing = ["anomalous", "named", "photographs", "colours"]
known = ["results", "dataset", "guess_object", *drawing, *chosen]
parameters = check_parameters(globals(), known)
kind = Saliency(**{name: parameters[name] for name in chosen})

# %% [markdown]
# ## Draw
#
# The images are chosen by a rule, not by taste: the normal image with the median score, and
# anomalous images at even steps from the one that attention helped most to the one that it helped
# least. A file can name others.
#
# In each row of a category the last colour is the strongest map of all normal test images, so that
# none of these glows because nothing in it is brighter. A map beyond that has a scale of its own
# and says how many times as high it is: scores of a flow, and their maps, may lie decades apart.
#
# A run keeps Grad-CAM maps of its anomaly score, unless `map_views` was 0. Others are made by its
# model, where it kept that (`save_model`), and then lie beside them.

# %%
from IPython.display import Image, Markdown

from adnlib import gaze, heatmaps, records

folder = project_path(parameters["results"])
dataset = parameters["dataset"]
options = {name: parameters[name] for name in drawing}
options["named"] = options["named"] and project_path(options["named"])
png, pdf, images = heatmaps.draw_gradcam(folder, dataset, kind=kind, **options)
png, pdf, images

# %%
Image(filename=str(png), width=900)

# %% [markdown]
# ## The images, and why these
#
# `percentile`: share of the normal test images' scores that lie below the image's own. `gain`:
# how much higher it is with attention. `scale`: the map's value that gets the last colour. Each is
# of the variant behind its name, `none` being DifferNet.

# %%
records.read_tidy(images).drop(columns=["dataset", "mask"])

# %% [markdown]
# ## A number for "looks at it"
#
# A picture can be chosen; these are means over all test images that have a mask. The *centre
# prior* is one and the same blurred spot for every image: in data sets whose objects fill the
# middle it does well without looking. What is not above it shows nothing.

# %%
written = gaze.write_looking(folder, dataset, kind, parameters["guess_object"])

# %%
Markdown(
    written[2].read_text(encoding="utf-8")
    if written
    else "No mask says where a defect or an object is, so nothing can be measured."
)
