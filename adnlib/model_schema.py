"""What model.json and the description of an export may hold, as JSON Schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adnlib.model_settings import MOST
from adnlib.threshold import RULES, SMALLEST_FPR

FILE_FORMAT = 3
EXPORT_FORMAT = 1

_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBER = {"type": "number", "minimum": -1e30, "maximum": 1e30}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10**9}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


MODEL_SCHEMA = _object(
    format={"const": FILE_FORMAT},
    versions={"type": "object", "additionalProperties": {"type": "string"}},
    settings={
        "type": "object",
        "properties": {
            name: {"type": "integer", "minimum": 1, "maximum": most} for name, most in MOST.items()
        },
        "additionalProperties": {
            "anyOf": [{"type": ["string", "boolean"], "maxLength": 1000}, _NUMBER]
        },
    },
    self_contained={"type": "boolean"},
    weights_sha256={"anyOf": [_HASH, {"const": "random"}]},
    tensors_sha256=_HASH,
    threshold=_or_null(
        _object(
            value=_NUMBER,
            rule={"enum": list(RULES)},
            fpr={"type": "number", "minimum": SMALLEST_FPR, "exclusiveMaximum": 1},
            normal_scores={"type": "array", "items": _NUMBER, "minItems": 1},
            anomalies=_COUNT,
            found=_COUNT,
            expected_fpr=_or_null(_NUMBER),
            fpr_bound=_or_null(_NUMBER),
            sentence={"type": "string"},
        )
    ),
    heat_scale=_or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 1e30}),
    training=_or_null(
        _object(
            images=_COUNT,
            held_out=_COUNT,
            epochs=_COUNT,
            seconds=_NUMBER,
            train_loss=_NUMBER,
            holdout_loss=_or_null(_NUMBER),
        )
    ),
    sha256=_HASH,
)

EXPORT_SCHEMA = _object(
    **{"format": {"const": EXPORT_FORMAT}}
    | {
        name: MODEL_SCHEMA["properties"][name]
        for name in ("settings", "weights_sha256", "threshold", "versions")
    }
)
