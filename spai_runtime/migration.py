"""Migration turns a detector.json of an older schema into one of today's.

Schemas 1 and 2 (2 added the calibration) name one pair of graphs, with its precision, and at most one plan of
TensorRT's; what the accuracy check found is in their `provenance` and `options`, under `gate`. Schema 3 has a list of
artifacts. Schema 4 adds the windows of `views`, which older files leave out.
"""

from collections.abc import Mapping
from typing import Any

_OF_GRAPHS = ("encoder", "head", "precision", "plan")
_TARGET = ("tensorrt", "gpu", "compute_capability", "batch_size", "version_compatible")


def migrate(content: Any, schema: int) -> Any:
    """Convert the content to schema 4.

    :param content: the content of the file, decoded
    :returns: the same in schema 4; what does not follow its schema is left as it is, for the reader to refuse
    """
    if schema >= 3 or not isinstance(content, dict):
        return content
    kept = {name: value for name, value in content.items() if name not in _OF_GRAPHS}
    if isinstance(views := kept.get("views"), dict):
        kept["views"] = {"policy": "tiles", **views}  # there was no other
    graphs = {name: content[name] for name in ("encoder", "head", "precision") if name in content}
    artifacts = [{"kind": "onnx", **graphs, **_accuracy(kept.get("provenance"))}]
    plan = content.get("plan")
    if isinstance(plan, dict):
        artifacts.append(_artifact_of_plan(plan, content.get("precision")))
    elif plan is not None:
        return {**kept, "artifacts": [*artifacts, plan]}  # which is none
    return {**kept, "artifacts": artifacts}


def _artifact_of_plan(plan: Mapping[str, Any], precision: Any) -> dict[str, Any]:
    options = plan.get("options", {})
    return {
        "kind": "tensorrt",
        "precision": precision,
        **{name: plan[name] for name in ("encoder", "head") if name in plan},
        "target": {name: plan[name] for name in _TARGET if name in plan},
        "options": options,
        **_accuracy(options),
    }


def _accuracy(record: Any) -> dict[str, Any]:
    gate = record.get("gate") if isinstance(record, dict) else None
    return {"accuracy": gate} if gate else {}
