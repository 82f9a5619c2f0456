"""The unlearning engine: one base kept on its device, with its encoders and its gate, for one batch after another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_args

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store import Array, Manifest, ManifestFacts, ModelStore
from service.evaluation.gate import RECENT_PAIRS, Gate, GateReport, GateThresholds
from service.recommender.backbones import make_backbone
from service.recommender.training import best_device
from service.settings import Settings
from service.unlearning.encoder import InfluenceEncoder, OutdatedEncoder
from service.unlearning.protocol import ForgetResult
from service.unlearning.request import Mode, UnlearningRequest
from service.unlearning.state import TrainedState
from service.unlearning.unlearnrec import FineTuningConfig, UnlearnRec
from service.worker.targets import Keys, TargetKeys, TargetsByMode

log = structlog.get_logger()

EMBEDDINGS = "embeddings.safetensors"
BASE = "base.safetensors"
ENCODER = "encoder.safetensors"


class EncoderMissing(Exception):
    """The base has no influence encoder for a mode that is asked for; pre-train one, the erasures wait.

    `outdated`: it has one, of another version of Expunge.
    """

    def __init__(self, text: str, mode: Mode = "forget", *, outdated: bool = False) -> None:
        super().__init__(text)
        self.mode, self.outdated = mode, outdated


@dataclass(frozen=True)
class ResolvedBatch:
    """A batch in rows of the base: everything since the base, the pairs of it that came last, the batch's own part.

    `changes`: whether the batch adds anything that the base has learnt.
    """

    request: UnlearningRequest
    recent: UnlearningRequest
    batch: UnlearningRequest
    changes: bool


class Engine(Protocol):
    """What the pipeline asks of the science; one engine serves one base."""

    @property
    def base(self) -> int:
        """The base's version number."""
        ...

    @property
    def encoders(self) -> Mapping[str, int]:
        """The number of the encoder of each mode."""
        ...

    def resolve(self, settled: TargetsByMode, batch: TargetsByMode) -> ResolvedBatch:
        """Resolve keys to interactions that the base has learnt."""
        ...

    def apply(self, resolved: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
        """The model without the request, always from the base."""
        ...

    def gate(self, resolved: ResolvedBatch, result: ForgetResult) -> GateReport:
        """Whether the result may serve."""
        ...

    def embeddings(self, result: ForgetResult) -> dict[str, Array]:
        """The tensors that a version of this result serves."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a manifest says of how versions of this base are made: dataset hash, seed, options."""
        ...


@dataclass(frozen=True)
class LoadedBase:
    """A base on its device. Shapes: `user_keys` (n_users,), `item_keys` (n_items,) int64 ascending."""

    state: TrainedState
    user_keys: Keys
    item_keys: Keys
    manifest: Manifest


def load_base(store: ModelStore, number: int) -> LoadedBase:
    """Read a base out of the store, verified, onto the best device; raises StoreError."""
    manifest = store.manifest("versions", number)
    embeddings = store.open("versions", number, EMBEDDINGS)
    keys = [np.array(embeddings[name]) for name in ("user_keys", "item_keys")]
    tensors = {name: _tensor(array) for name, array in store.open("versions", number, BASE).items()}
    backbone = make_backbone(manifest.facts.config["backbone"])
    state = TrainedState.from_tensors(tensors, len(keys[0]), backbone, best_device())
    return LoadedBase(state, keys[0], keys[1], manifest)


class UnlearningEngine:
    """A base from the model store, ready to forget.

    Args:
        store: where the base and its encoders are; both are verified while they are read.
        base: the base's version number.
        encoders: encoder number by mode.
        settings: gate thresholds and the number of threads.

    Raises:
        StoreError: the base or an encoder is gone or damaged.
    """

    def __init__(self, store: ModelStore, base: int, encoders: Mapping[str, int], settings: Settings) -> None:
        torch.set_num_threads(settings.torch_threads or torch.get_num_threads())
        loaded = load_base(store, base)
        self.base, self.encoders = base, dict(encoders)
        self.state, self.user_keys, self.item_keys = loaded.state, loaded.user_keys, loaded.item_keys
        self._origin = loaded.manifest.facts
        device = self.state.e0.device
        found = {mode: load_encoder(store, encoders[mode], device) for mode in _modes(encoders)}
        learnt = {mode: encoder for mode, encoder in found.items() if encoder is not None}
        self.method = UnlearnRec(learnt, fine_tuning=_fine_tuning(self._origin))
        self.method.prepare(self.state)
        self._gate = Gate(self.state, _thresholds(settings), self._origin.seed)
        self._settled: tuple[TargetsByMode, UnlearningRequest] | None = None

    def resolve(self, settled: TargetsByMode, batch: TargetsByMode) -> ResolvedBatch:
        """Resolve keys to interactions that the base has learnt; others are passed over."""
        whole = settled + batch
        before, after = self._settled_request(settled), self._request(whole)
        same = torch.equal(before.forget, after.forget) and torch.equal(before.dislike, after.dislike)
        recent = self._request(whole.last_pairs(RECENT_PAIRS))
        return ResolvedBatch(after, recent, self._request(batch), not same)

    def apply(self, resolved: ResolvedBatch, fine_tune_epochs: int) -> ForgetResult:
        """The model without the request: the same request and epochs give the same bytes.

        Raises:
            EncoderMissing: there is no encoder for a mode that the request holds.
        """
        for mode in get_args(Mode):
            if resolved.request.of_mode(mode).shape[1] and mode not in self.method.encoders:
                outdated = "; the one it has is of another version of Expunge" if mode in self.encoders else ""
                msg = f"Base {self.base} has no influence encoder for mode {mode!r}{outdated}. Run `expunge pretrain`."
                raise EncoderMissing(msg, mode, outdated=bool(outdated))
        return self.method.with_epochs(fine_tune_epochs).forget(self.state, resolved.request)

    def gate(self, resolved: ResolvedBatch, result: ForgetResult) -> GateReport:
        """Whether the result may serve: batch and recent pairs judged for what they asked, the whole for its cost."""
        return self._gate.check(resolved.batch, result, resolved.request, resolved.recent)

    def embeddings(self, result: ForgetResult) -> dict[str, Array]:
        """The tensors of embeddings.safetensors; rows without an interaction are zero."""
        return embedding_tensors(result, self.user_keys, self.item_keys)

    def facts(self) -> Mapping[str, Any]:
        """What a manifest says of how versions of this base are made."""
        return {
            "dataset_hash": self._origin.dataset_hash,
            "seed": self._origin.seed,
            "backbone": self.state.backbone.config(),
            "device": self.state.e0.device.type,
        }

    def _settled_request(self, settled: TargetsByMode) -> UnlearningRequest:
        # What is settled changes only when a batch settles: it is resolved once, not for every try.
        if self._settled is None or self._settled[0] is not settled:
            self._settled = (settled, self._request(settled))
        return self._settled[1]

    def _request(self, targets: TargetsByMode) -> UnlearningRequest:
        return UnlearningRequest.of(self.state, *(self._edges(targets.of_mode(mode)) for mode in ("forget", "dislike")))

    def _edges(self, targets: TargetKeys) -> Tensor:
        user_rows, users_known = _rows(self.user_keys, targets.pairs[0])
        item_rows, items_known = _rows(self.item_keys, targets.pairs[1])
        known = users_known & items_known
        pairs = torch.from_numpy(np.stack((user_rows[known], item_rows[known])))
        parts = [pairs.to(self.state.graph.device), *self._whole(targets)]
        return torch.cat([edges.int() for edges in parts], dim=1)

    def _whole(self, targets: TargetKeys) -> Iterator[Tensor]:
        """Edges of whole users and items, held-out ones too; a look at every edge, so only where some are named."""
        graph, held_out = self.state.graph, self.state.validation
        for side, keys, wanted, learnt in (
            (0, self.user_keys, targets.users, graph.edges_of_users),
            (1, self.item_keys, targets.items, graph.edges_of_items),
        ):
            rows, known = _rows(keys, wanted)
            if known.any():
                whole = torch.from_numpy(rows[known]).to(graph.device)
                yield learnt(whole)
                yield held_out[:, torch.isin(held_out[side].long(), whole)]


def embedding_tensors(result: ForgetResult, user_keys: Keys, item_keys: Keys) -> dict[str, Array]:
    """The tensors of embeddings.safetensors of a model.

    Args:
        result: readout (n_nodes, d) and the graph that it serves.
        user_keys: (n_users,) surrogate keys, ascending.
        item_keys: (n_items,) surrogate keys, ascending.
    """
    readout = result.readout.detach().cpu().numpy()
    n_users = len(user_keys)
    return {
        "users": readout[:n_users],
        "items": readout[n_users:],
        "user_keys": user_keys,
        "item_keys": item_keys,
        "user_degrees": result.graph.user_degree.int().cpu().numpy(),
        "item_degrees": result.graph.item_degree.int().cpu().numpy(),
    }


def _fine_tuning(origin: ManifestFacts) -> FineTuningConfig:
    training = origin.config.get("training")  # an adopted base was trained elsewhere
    return FineTuningConfig() if training is None else FineTuningConfig(batch_size=training["batch_size"])


def load_encoder(store: ModelStore, number: int, device: torch.device) -> InfluenceEncoder | None:
    """The encoder; None where it is of another version: what it would do is not what it was judged for."""
    config = store.manifest("encoders", number).facts.config
    tensors = {name: _tensor(array) for name, array in store.open("encoders", number, ENCODER).items()}
    try:
        return InfluenceEncoder.from_tensors(config["encoder"], tensors, device)
    except OutdatedEncoder:
        log.warning("encoder.outdated", encoder=number)
        return None


def _modes(encoders: Mapping[str, int]) -> list[Mode]:
    return [mode for mode in get_args(Mode) if mode in encoders]


def _rows(keys: Keys, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of keys in an ascending array, and whether each is there; a row whose flag is false means nothing."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    rows = np.searchsorted(keys, wanted).clip(max=len(keys) - 1).astype(np.int64)
    return rows, keys[rows] == wanted


def _tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only and stays so: nothing in the science writes to what it was given.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _thresholds(settings: Settings) -> GateThresholds:
    return GateThresholds(**{limit.name: getattr(settings, f"gate_{limit.name}") for limit in fields(GateThresholds)})
