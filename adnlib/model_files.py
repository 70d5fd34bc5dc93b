"""The folder that a model is kept in: `model.safetensors`, and `model.json` that describes it.

Both are written whole or not at all, and read with suspicion: no pickle, no path out of the file is
opened, every value is checked for type and range before anything is built by it. SHA-256 digests
find damage of a single byte. They are no signature: whoever can write the folder can write new
ones, which is why the other checks do not rest on them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adnlib.errors import InputError, one_line, reading, writing
from adnlib.flow import FlowSettings, build_flow
from adnlib.model_schema import FILE_FORMAT, MODEL_SCHEMA
from adnlib.provenance import versions
from adnlib.staging import staging

JSON_NAME, TENSORS_NAME = "model.json", "model.safetensors"

_LARGEST_JSON = 32 << 20  # bytes; a million held-out scores fit
_BLANK = "0" * 64


class ModelThereError(InputError):
    """A model is there that is not to be replaced."""


def write(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    description: dict[str, Any],
    replace: bool = True,
) -> None:
    """Write both files.

    A new folder appears in one step, or not at all. Into one that exists each file is put in one
    step, and between the two the digest tells that they do not belong together. Other files there
    are left alone.

    Raises:
        ModelThereError: one is there that is not to be replaced; of several processes one writes.
        InputError: it cannot be written.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = folder if folder.is_dir() else folder.parent
        with staging(where) as beside:
            new = beside / "model"
            new.mkdir()
            _save_tensors(tensors, new / TENSORS_NAME)
            digest = {"tensors_sha256": _sha256(new / TENSORS_NAME)}
            (new / JSON_NAME).write_text(render(description | digest), encoding="utf-8")
            umask = os.umask(0)
            os.umask(umask)
            (new / TENSORS_NAME).chmod(0o666 & ~umask)  # safetensors writes for the owner alone
            for name in (TENSORS_NAME, JSON_NAME):
                _flush(new / name)
            if not replace:
                _claim(folder)
            if folder.is_dir():
                for name in (TENSORS_NAME, JSON_NAME):
                    (new / name).replace(folder / name)
            else:
                new.rename(folder)


def check_room(folder: Path, size: int) -> None:
    """Find out before a long computation whether so many bytes can be written there.

    Raises:
        InputError: the place cannot be written, or is too small.
    """
    with writing(folder):
        places = (folder, *folder.absolute().parents)
        where = next(place for place in places if os.path.lexists(place))
        if not where.is_dir():  # a file, or a link to what is gone
            raise NotADirectoryError(errno.ENOTDIR, f"{str(where)!r} is no folder")
        with staging(where):
            pass
        if shutil.disk_usage(where).free < size:
            raise OSError(errno.ENOSPC, f"a model takes {size / 1e6:.0f} MB, more than is free")


def render(description: Mapping[str, Any]) -> str:
    """The text of model.json, with the digest of itself as it is with that digest blank."""
    blank = {
        **description,
        "format": FILE_FORMAT,
        "versions": versions(("adnlib", "torch", "FrEIA", "safetensors")),
        "sha256": _BLANK,
    }
    text = json.dumps(blank, indent=2, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(f'"sha256": "{_BLANK}"', f'"sha256": "{digest}"')


def read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The description, of right types throughout, and the tensors, finite, on the CPU.

    Raises:
        InputError: a file is missing, damaged, or of another version of adnlib.
    """
    description = _read_json(folder / JSON_NAME)
    path = folder / TENSORS_NAME
    _check_there(path)
    try:
        if _sha256(path) != description["tensors_sha256"]:
            _refuse(path, "it is cut short, changed, or another model's")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        _refuse(path, one_line(error))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            _refuse(path, f"{name} holds numbers that are not finite")
    return description, tensors


def identity(folder: Path) -> str:
    """Which model lies in a folder: the SHA-256 of its description, which has the tensors'.

    Raises:
        OSError: there is none.
    """
    return _sha256(folder / JSON_NAME)


def check_flow(folder: Path, settings: FlowSettings, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse settings whose flow is not the file's, before they take memory."""
    permuted = (t for name, t in tensors.items() if name.endswith(".perm"))
    features = next(permuted, torch.empty(0)).numel()
    with torch.device("meta"):
        flow = build_flow(max(features, 2), settings, seed=0)
    found = {name: t for name, t in tensors.items() if name.startswith("flow.")}
    check_tensors(folder, found, {f"flow.{name}": t for name, t in flow.state_dict().items()})


def check_tensors(
    folder: Path, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    damaged = f"the model in {str(folder)!r} is damaged"
    if differ := found.keys() ^ wanted.keys():
        raise InputError(f"{damaged}: it lacks or adds {min(differ)[:80]!r}; save it again.")
    for name, tensor in wanted.items():
        same = (tensor.shape, tensor.dtype) == (found[name].shape, found[name].dtype)
        if same and ".perm" in name and not tensor.is_meta:
            same = torch.equal(tensor.cpu(), found[name])  # a permutation indexes memory
        if not same:
            raise InputError(f"{damaged}: {name!r} does not fit its settings; save it again.")


def _claim(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    try:
        (folder / JSON_NAME).touch(exist_ok=False)  # which one process alone can do
    except FileExistsError:
        raise ModelThereError(f"{str(folder)!r} holds a model: give another folder.") from None


def _save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
    except SafetensorError as error:  # which holds what the system said
        raise OSError(one_line(error)) from None


def _read_json(path: Path) -> dict[str, Any]:
    _check_there(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            _refuse(path, f"it has more than {_LARGEST_JSON >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_no_number)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        _refuse(path, one_line(error))
    if not isinstance(found, dict):
        _refuse(path, "it is no JSON object")
    version = found.get("format")
    if type(version) is int and version != FILE_FORMAT:
        advice = "update adnlib" if version > FILE_FORMAT else "fit again"
        raise InputError(
            f"{str(path)!r} has format {_short(version)}, and this adnlib reads {FILE_FORMAT}: "
            f"{advice}."
        )
    digest = found.get("sha256")
    blank = text.replace(f'"sha256": "{digest}"', f'"sha256": "{_BLANK}"', 1)
    if hashlib.sha256(blank.encode()).hexdigest() != digest:
        _refuse(path, "it was changed since it was written")
    for misfit in jsonschema.Draft202012Validator(MODEL_SCHEMA).iter_errors(found):
        where = ".".join(map(str, misfit.absolute_path)) or "it"
        _refuse(path, f"{where} does not fit: {_short(misfit.message)}")
    return found


def _check_there(path: Path) -> None:
    with reading(path):
        is_file = path.is_file()
    if not is_file:
        raise InputError(
            f"{str(path)!r} is missing: give a folder that a model was saved in; "
            "a run saves one with save_model=true."
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"{str(path)!r} may not be read: change its permissions.")


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(f"{str(path)!r} is damaged ({why.rstrip('.')}): copy or save the model again.")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 100 else f"{text[:80]!r} ..."


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
