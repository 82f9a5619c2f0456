"""Everything that is measured of one method on one request: the contents of a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor

from service.evaluation import single
from service.evaluation.cost import Cost, measured
from service.evaluation.figures import Figures
from service.evaluation.grid import CellKey
from service.evaluation.group import CellGroup
from service.evaluation.methods import LatencyClass, Method, MethodContext
from service.evaluation.protocols import STREAM_BATCHES
from service.evaluation.stream import MEASURE_EVERY, Stream, StreamResult, cumulative, stepwise
from service.unlearning.protocol import ForgetResult, Unlearner
from service.unlearning.state import TrainedState

AT_ONCE: Final = {
    LatencyClass.INSTANT: 1,
    LatencyClass.MODERATE: MEASURE_EVERY,
    LatencyClass.TRAINING: STREAM_BATCHES // 2,
}
"""Batches of a stream that a method of this class is given at once: it is measured after 200, 10 or 2 requests."""


@dataclass(frozen=True)
class PreparedMethod:
    """A method that has paid its one-off cost for a base."""

    method: Method
    unlearner: Unlearner
    state: TrainedState
    oneoff: Cost

    @classmethod
    def of(cls, method: Method, context: MethodContext, state: TrainedState) -> PreparedMethod:
        """Makes the method and prepares it: from here on its settings are fixed."""
        unlearner = method.make(context)
        _, cost = measured(lambda: unlearner.prepare(state), state.e0.device)
        kept: Cost | None = getattr(unlearner, "oneoff", None)
        return cls(method, unlearner, state, kept or cost)


def measure(key: CellKey, group: CellGroup, prepared: PreparedMethod, train_bytes: int | None) -> dict[str, Any]:
    """The cell, but for `_measured`.

    Args:
        key: of the cell.
        group: the models and pairs it is measured with.
        prepared: the method.
        train_bytes: memory of a training of the backbone.

    Two cells of the same key differ in seconds and memory only.
    """
    figures = Figures(group, key.seed, compared=not prepared.method.reference, retrained=key.method == "retrain")
    match key.protocol:
        case "stream":
            parts, cost = _stream(group, prepared, figures)
        case "single":
            parts, cost = _single(group, prepared, figures)
        case _:
            result, cost = _forget(group, prepared)
            before = prepared.unlearner.before(prepared.state)
            parts = figures.of(result, before) | _told(prepared, result) | {"n_requests": 1}
            parts["relearn_steps"] = figures.relearn_steps(result, before)
    request = getattr(prepared.unlearner, "request", None) or cost
    request_bytes = train_bytes if key.method == "retrain" else request.peak_bytes
    known = [size for size in (request_bytes, prepared.oneoff.peak_bytes) if size is not None]
    steps = parts.pop("seconds", {})
    cell = {
        **asdict(key),
        "device": device_name(prepared.state.e0.device),
        "n_erased": int(group.scenario.edges.shape[1]),
        **parts,
        "seconds": {
            "request": request.seconds,
            "oneoff": prepared.oneoff.seconds,
            "train": group.base(key.seed).seconds,
            "steps": steps,
        },
        "peak_memory_bytes": max(known, default=None),
        "memory": {"request": request_bytes, "oneoff": prepared.oneoff.peak_bytes, "train": train_bytes},
    }
    plain: dict[str, Any] = plain_values(cell)
    return plain


def _forget(group: CellGroup, prepared: PreparedMethod) -> tuple[ForgetResult, Cost]:
    state = prepared.state
    request = group.request(state, prepared.method.mode)
    repeat = prepared.method.latency is not LatencyClass.TRAINING
    return measured(lambda: prepared.unlearner.forget(state, request), state.e0.device, repeat=repeat)


def _stream(group: CellGroup, prepared: PreparedMethod, figures: Figures) -> tuple[dict[str, Any], Cost]:
    state, method = prepared.state, prepared.method
    every = STREAM_BATCHES if figures.retrained else AT_ONCE[method.latency]
    stream = Stream(group.scenario.edges.to(state.e0.device), every=every)
    arguments = (prepared.unlearner, state, stream, method.mode, figures.brief)
    streamed, cost = measured(lambda: cumulative(*arguments), state.e0.device)
    streams: dict[str, StreamResult] = {"cumulative": streamed}
    if method.stepwise:
        streams["stepwise"] = stepwise(*arguments)
    requests = len(streamed.seconds)
    parts = figures.of(streamed.result, prepared.unlearner.before(state)) | _told(prepared, streamed.result)
    parts["n_requests"] = requests
    parts["stream"] = {name: each.points for name, each in streams.items()} | {
        "seconds": {name: each.tenths() for name, each in streams.items()}
    }
    return parts, Cost(sum(streamed.seconds) / max(requests, 1), cost.peak_bytes)


def _single(group: CellGroup, prepared: PreparedMethod, figures: Figures) -> tuple[dict[str, Any], Cost]:
    state, method = prepared.state, prepared.method
    pairs = single.pairs(group.scenario.edges.to(state.e0.device), method.latency, whole=figures.retrained)
    own, cost = measured(lambda: single.forget_each(prepared.unlearner, state, pairs, method.mode), state.e0.device)
    parts = figures.of_single_pairs(own, prepared.unlearner.before(state)) | _told(prepared, own.first)
    parts["n_requests"] = pairs.shape[1]
    return parts, Cost(own.seconds, cost.peak_bytes)


def _told(prepared: PreparedMethod, result: ForgetResult) -> dict[str, Any]:
    """Seconds of the steps of a method, and whatever it and its result say beyond the contract."""
    common = {field.name for field in fields(ForgetResult)}
    own = {field.name: getattr(result, field.name) for field in fields(result) if field.name not in common}
    for name in ("report", "residual"):  # the influence family tells of its solver there
        told = getattr(prepared.unlearner, name, None)
        own |= {} if told is None else {name: told}
    return {
        "seconds": dict(result.seconds),
        "report": {"fine_tune_epochs": result.fine_tune_epochs} | own,
    }


def plain_values(value: Any) -> Any:
    """Plain JSON values: what is not finite becomes null, tensors of one element numbers, larger ones are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain_values(part) for name, part in value.items() if not _is_large(part)}
    if isinstance(value, list | tuple):
        return [plain_values(part) for part in value if not _is_large(part)]
    if isinstance(value, Tensor):
        return plain_values(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _is_large(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() != 1


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the graphics processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
