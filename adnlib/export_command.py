"""The command that makes one file of a detector for other programs."""

from __future__ import annotations

import argparse
from typing import Any

from adnlib.errors import InputError
from adnlib.parsing import command, finish, guarded, path, tell
from adnlib.words import counted

EXAMPLES = """\
examples:
  adnlib export my_model --out my_model.onnx
      for `adnlib score my_model.onnx photos`, and any other program that runs ONNX
  adnlib export my_model --out my_model.pt2 --images photos/new
      for torch.export.load; both are checked, here with the images of a folder
  adnlib export my_model --out my_model.onnx --force
      once more, after the model was fitted again

The file takes uint8 images (N, 3, S, S), RGB, of the size that the command prints, and gives N
scores.
exit code: 0; 2 for a mistake, or a file whose scores are not the model's, which is not kept.
"""


def add_to(commands: Any) -> None:
    """Add it to a parser's commands."""
    title = "make one file of a model for other programs"
    parser = command(commands, "export", title, epilog=EXAMPLES)
    add = parser.add_argument
    add("model", type=path, metavar="MODEL", help="folder that fit has written")
    add("--out", type=path, metavar="FILE", required=True, help="NAME.onnx or NAME.pt2")
    add("--images", type=path, metavar="PATH", help="image or folder to check the file with")
    add("--force", action="store_true", help="replace the file that is there")
    finish(parser, guarded(_export, "nothing was written"))


def _export(options: argparse.Namespace) -> int:
    # Here, as torch takes seconds to load.
    from adnlib.export import TOLERANCE, check_export, export_model, noise
    from adnlib.inputs import read_images
    from adnlib.model import AttentDifferNet

    check_export(options.out)
    if options.out.exists() and not options.force:
        raise InputError(
            f"{str(options.out)!r} is there: give another file, or --force to replace it."
        )
    model = AttentDifferNet.load(options.model, "cpu")
    size = model.settings.image_size
    images = read_images(options.images, size)[:] if options.images else noise(2, size)
    difference = export_model(model, options.out, images)
    checked = counted(len(images), "image" if options.images else "drawn image")
    tell(f"{str(options.out)!r} takes uint8 images (N, 3, {size}, {size}) and gives N scores")
    tell(
        f"checked with {checked}: scores differ from the model's by at most {difference:.1e} of "
        f"them (allowed: {TOLERANCE:g})"
    )
    return 0
