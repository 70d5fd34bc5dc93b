"""The ONNX file that a detector is exported to, and the detector that onnxruntime makes of it.

The file describes itself in two entries of its metadata: `adnlib`, a JSON of settings and
threshold, and behind it `adnlib_sha256`, the digest of the file as it is with that digest blank. It
is read with suspicion, as a model's folder is: the digest finds damage and is no signature, the
description is checked for types and ranges, and a graph of other inputs and outputs than a
detector's, or one that points to other files, is refused.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import torch

from adnlib.errors import InputError, one_line, reading
from adnlib.inputs import Images, read_images
from adnlib.model_schema import EXPORT_FORMAT, EXPORT_SCHEMA
from adnlib.model_settings import ModelSettings, stored_settings
from adnlib.threshold import Threshold

SUFFIX = ".onnx"
INPUT, OUTPUT = "images", "scores"

_DESCRIPTION, _DIGEST = "adnlib", "adnlib_sha256"
_BLANK = b"0" * 64
_CUDA = "CUDAExecutionProvider"
_MARK = _DIGEST.encode() + b"\x12\x40"  # as protobuf writes the key, and that 64 bytes follow


class OnnxModel:
    """A detector in an ONNX file. It scores as the one that it was made of; it draws no maps.

    Attributes:
        settings: of the detector, as far as they are its own.
        threshold: scores above it mean anomalous; None if it has none.
    """

    def __init__(self, session: Any, settings: ModelSettings, threshold: Threshold | None) -> None:
        self._session = session
        self.settings = settings
        self.threshold = threshold

    def __repr__(self) -> str:
        return f"OnnxModel({self.settings.changed})"

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> OnnxModel:
        """Open an exported file.

        Args:
            path: a file that `export_model` has written.
            device: "auto" (CUDA where this onnxruntime has it), "cpu" or "cuda".

        Raises:
            InputError: onnxruntime is not installed or lacks the device; or the file is missing,
                damaged, of a newer version, or no exported detector.
        """
        path = Path(path)
        with reading(path):
            is_file = path.is_file()
        if not is_file:
            raise InputError(f"{str(path)!r} is missing: give a file that adnlib export wrote.")
        _check_digest(path)
        session = _session(path, device)
        found = _description(path, session)
        settings = stored_settings(found["settings"], path)
        _check_graph(path, session, settings)
        threshold = found["threshold"] and Threshold.from_description(found["threshold"])
        return cls(session, settings, threshold)

    def score(self, images: Images) -> torch.Tensor:
        """Anomaly scores (N,) of images of any kind, see `AttentDifferNet.score`."""
        pixels = read_images(images, self.settings.image_size)
        # One by one, so that a score depends on its image alone and memory on one image.
        return torch.cat(
            [
                torch.from_numpy(self._session.run([OUTPUT], {INPUT: one[None].cpu().numpy()})[0])
                for one in pixels
            ]
        )


def describe(metadata: dict[str, str], description: Mapping[str, Any]) -> None:
    """Put both entries into a graph's metadata, the digest blank and last."""
    metadata[_DESCRIPTION] = json.dumps(description, allow_nan=False)
    metadata[_DIGEST] = _BLANK.decode()


def seal(path: Path) -> None:
    """Fill in the digest of a file that was written with a blank one."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        place = content.rfind(_MARK) + len(_MARK)
        content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()


def _check_digest(path: Path) -> None:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as read:
            mark = read.rfind(_MARK)
            place = mark + len(_MARK)
            digest = hashlib.sha256(memoryview(read)[:place])
            digest.update(_BLANK + read[place + 64 :])
            sealed = mark >= 0 and digest.hexdigest().encode() == read[place : place + 64]
    except ValueError:  # mmap refuses an empty file
        mark, sealed = -1, False
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}).") from None
    if mark < 0:
        raise InputError(
            f"{str(path)!r} was not written by adnlib export: give a file that was, or the folder "
            "of a model."
        )
    if not sealed:
        raise InputError(f"{str(path)!r} is damaged: copy or export it again.")


def _session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "an ONNX file needs onnxruntime, which is not installed: call pip install "
            "'adnlib[onnx]', or give the folder of the model."
        ) from None
    there = onnxruntime.get_available_providers()
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose auto, cpu or cuda for an ONNX file.")
    # Without the option, onnxruntime has TF32 in all products, the flow's too.
    chosen = [(_CUDA, {"use_tf32": "0"})] if device != "cpu" and _CUDA in there else []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it says is raised, too
    try:
        # Of bytes, so that the graph has no folder in which it could name other files.
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=[*chosen, "CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        reason = one_line(error)[:200]
        raise InputError(f"{str(path)!r} cannot be run ({reason}): export it again.") from None
    if device == "cuda" and _CUDA not in session.get_providers():  # it then runs on the CPU
        raise InputError(
            "onnxruntime cannot use CUDA here: choose cpu, or install onnxruntime-gpu and the CUDA "
            "libraries that it was made for."
        )
    return session


def _description(path: Path, session: Any) -> dict[str, Any]:
    try:
        found = json.loads(session.get_modelmeta().custom_metadata_map[_DESCRIPTION])
        version = int(found["format"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise InputError(f"{str(path)!r} describes no detector: export it again.") from None
    if version != EXPORT_FORMAT:
        advice = "update adnlib" if version > EXPORT_FORMAT else "export it again"
        raise InputError(
            f"{str(path)!r} has format {version}, and this adnlib reads {EXPORT_FORMAT}: {advice}."
        )
    for misfit in jsonschema.Draft202012Validator(EXPORT_SCHEMA).iter_errors(found):
        where = ".".join(map(str, misfit.absolute_path)) or "its description"
        raise InputError(f"{str(path)!r} is damaged ({where} does not fit): export it again.")
    return found


def _check_graph(path: Path, session: Any, settings: ModelSettings) -> None:
    size = settings.image_size
    inputs = [(i.name, i.shape[1:], i.type) for i in session.get_inputs()]
    outputs = [(o.name, len(o.shape), o.type) for o in session.get_outputs()]
    if inputs != [(INPUT, [3, size, size], "tensor(uint8)")] or outputs != [
        (OUTPUT, 1, "tensor(float)")
    ]:
        raise InputError(f"the graph in {str(path)!r} is no detector's: export it again.")
