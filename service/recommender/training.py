"""Training a backbone from scratch: epochs, early stopping, checkpoints."""

import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from service.recommender.arrays import array_text, text_array, write_arrays
from service.recommender.backbones.base import Backbone
from service.recommender.graph import InteractionGraph
from service.recommender.ranking import RankingQuality, ranking_quality
from service.recommender.sampling import batches
from service.recommender.soundness import Diverged, cause_of

DIVERGED = 2.0
"""An epoch whose mean loss is so many times that of the first step, before anything was learnt, went the wrong way:
at a hundred times a good learning rate it is 6 times as high (ML-100K), and the ranking is popularity's at best."""
LOOK_EVERY = 32  # steps between two looks at the loss: on an accelerator each look waits for it


@dataclass(frozen=True)
class TrainingConfig:
    """How a backbone is trained."""

    embedding_size: int = 128
    """Width d of the embeddings, >= 1."""
    batch_size: int = 4096
    """Interactions in a step, >= 1. Every step propagates over the whole graph, so large batches are fast."""
    learning_rate: float = 5e-3
    """Step size of Adam at the start, > 0."""
    final_learning_rate: float = 5e-3
    """Step size in the last epoch; linear in between."""
    epochs: int = 40
    """At most so many passes over the interactions, >= 1."""
    patience: int = 3
    """Stop after so many epochs in a row without a better validation NDCG, >= 1."""
    init_scale: float = 0.1
    """Standard deviation of the first embeddings, > 0."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.embedding_size, self.batch_size, self.epochs, self.patience) < 1:
            msg = "embedding_size, batch_size, epochs and patience must be at least 1."
            raise ValueError(msg)
        if not all(0 < value < inf for value in (self.learning_rate, self.final_learning_rate, self.init_scale)):
            msg = "learning rates and init_scale must be numbers above 0."
            raise ValueError(msg)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        done = epoch / max(self.epochs - 1, 1)
        return self.learning_rate + done * (self.final_learning_rate - self.learning_rate)


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave."""

    epoch: int
    epochs: int
    loss: float
    quality: RankingQuality
    best: bool
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """The embeddings of the best epoch, and how they were reached."""

    e0: Tensor
    best_epoch: int
    epochs: int
    validation: RankingQuality
    seconds: float
    history: tuple[EpochReport, ...]


def best_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Training:
    """A run of training that can be stopped after any epoch and taken up again.

    Args:
        backbone: what to train.
        graph: interactions to learn from.
        validation: (2, k) held-out edges; they decide when to stop. With none, all epochs run and the last one counts.
        config: settings.
        device: where to compute; default the best one at hand.

    Same inputs, same seed, same device and same number of threads give the same embeddings.
    """

    def __init__(
        self,
        backbone: Backbone,
        graph: InteractionGraph,
        validation: Tensor,
        config: TrainingConfig,
        device: torch.device | None = None,
    ) -> None:
        self.backbone, self.config = backbone, config
        self.device = device or best_device()
        self.graph = graph.to(self.device)
        self.validation = InteractionGraph(graph.n_users, graph.n_items, validation).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        shape = (graph.n_nodes, config.embedding_size)
        start = torch.randn(shape, generator=self.generator, device=self.device) * config.init_scale
        self.e0 = start.requires_grad_()
        self.best = start.detach().clone()
        self.optimiser = torch.optim.Adam([self.e0], lr=config.learning_rate, fused=True)
        self.history: list[EpochReport] = []
        self.best_epoch = -1
        self.first_loss: float | None = None
        """The loss of the first step, before anything was learnt."""

    def run(
        self, report: Callable[[EpochReport], None] | None = None, checkpoint: Path | None = None
    ) -> TrainingResult:
        """Trains until validation stops improving.

        Args:
            report: called after each epoch.
            checkpoint: a file that is read at the start where it exists, and written after each epoch.

        Raises:
            Diverged: the loss is not finite, or far above that of the first step; the checkpoint is taken away.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        try:
            for epoch in self._epochs():
                # Written first: whoever stops at what is reported, or while it is, loses nothing.
                if checkpoint is not None:
                    self.save(checkpoint)
                if report is not None:
                    report(epoch)
        except Diverged:
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
            raise
        return self._result()

    def run_afresh_or_on(self, report: Callable[[EpochReport], None] | None, checkpoint: Path | None) -> TrainingResult:
        """`run`, from the checkpoint where that is of use; one of other settings, or a damaged one, is taken away."""
        if checkpoint is not None and checkpoint.exists():
            try:
                self.load(checkpoint)
            except (ValueError, OSError, KeyError, EOFError, BadZipFile):
                checkpoint.unlink(missing_ok=True)
        return self.run(report, checkpoint)

    def _epochs(self) -> Iterator[EpochReport]:
        while len(self.history) < self.config.epochs and not self._stale():
            self.history.append(self._epoch(len(self.history)))
            yield self.history[-1]

    def _stale(self) -> bool:
        return len(self.history) - 1 - self.best_epoch >= self.config.patience

    def _epoch(self, number: int) -> EpochReport:
        started = time.perf_counter()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(number)
        loss, steps = torch.zeros((), device=self.device), 0
        for batch in batches(self.graph, self.config.batch_size, self.generator):
            self.optimiser.zero_grad()
            step_loss = self.backbone.loss(self.e0, self.graph, batch)
            step_loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            loss += step_loss.detach()
            steps += 1
            if self.first_loss is None:
                self.first_loss = float(step_loss.detach())
            if steps % LOOK_EVERY == 0:
                self._refuse_divergence(number, float(loss) / steps, grown=False)
        self._refuse_divergence(number, float(loss) / max(steps, 1))
        quality = self.quality()
        best = self._better(quality)
        if best:
            self.best.copy_(self.e0.detach())
            self.best_epoch = number
        seconds = time.perf_counter() - started
        return EpochReport(number, self.config.epochs, float(loss) / max(steps, 1), quality, best, seconds)

    def quality(self) -> RankingQuality:
        """Recall and NDCG of the current embeddings on the validation part."""
        with torch.no_grad():
            readout = self.backbone.propagate(self.e0, self.graph)
            return ranking_quality(readout, self.graph, self.validation)

    def _refuse_divergence(self, number: int, loss: float, *, grown: bool = True) -> None:
        """Stop at a mean loss that is not finite or, where that is asked, has `grown`; raises Diverged."""
        first = self.first_loss or 0.0
        # Nothing follows from growing where a backbone's loss may be 0 or less.
        if isfinite(loss) and not (grown and 0 < first < loss / DIVERGED):
            return
        how = f"is {loss:.3g}, and was {first:.3g} before anything was learnt" if isfinite(loss) else "is not finite"
        msg = (
            f"The training diverged in epoch {number + 1} of {self.config.epochs}: its loss {how}. "
            f"{cause_of(max(self.config.learning_rate, self.config.final_learning_rate))}"
        )
        raise Diverged(msg)

    def _better(self, quality: RankingQuality) -> bool:
        if not quality.n_users:
            return True
        return all(quality.ndcg > past.quality.ndcg for past in self.history)

    def _result(self) -> TrainingResult:
        best = self.history[self.best_epoch]
        seconds = sum(epoch.seconds for epoch in self.history)
        return TrainingResult(self.best, self.best_epoch, len(self.history), best.quality, seconds, tuple(self.history))

    def save(self, path: Path) -> None:
        """Writes a checkpoint: plain arrays, no pickle; whole or not at all."""
        adam = self.optimiser.state[self.e0]
        tensors = {"e0": self.e0.detach(), "best": self.best, "random": self.generator.get_state()}
        tensors |= {name: adam[name] for name in ("step", "exp_avg", "exp_avg_sq")}
        write_arrays(path, {"facts": text_array(_facts(self)), **tensors})

    def load(self, path: Path) -> None:
        """Takes up a checkpoint.

        Raises:
            ValueError: it was made with another configuration, backbone or graph.
        """
        with np.load(path, allow_pickle=False) as stored:
            facts = _read_facts(array_text(stored["facts"]))
            if facts["fingerprint"] != _fingerprint(self):
                msg = f"Checkpoint {path.name} belongs to other settings or data; move it away to start afresh."
                raise ValueError(msg)
            with torch.no_grad():
                self.e0.copy_(torch.from_numpy(stored["e0"]))
            self.best.copy_(torch.from_numpy(stored["best"]))
            self.generator.set_state(torch.from_numpy(stored["random"]))
            self.optimiser.state[self.e0] = {
                name: torch.from_numpy(stored[name]).to(self.device) for name in ("step", "exp_avg", "exp_avg_sq")
            }
        self.history = [_read_epoch(epoch) for epoch in facts["history"]]
        self.best_epoch, self.first_loss = facts["best_epoch"], facts.get("first_loss")


def _fingerprint(run: Training) -> dict[str, Any]:
    edges = zlib.crc32(run.graph.edges.cpu().numpy().tobytes())
    return {"config": asdict(run.config), "backbone": run.backbone.config(), "edges": edges}


def _facts(run: Training) -> str:
    history = [asdict(epoch) for epoch in run.history]
    facts = {"fingerprint": _fingerprint(run), "history": history, "best_epoch": run.best_epoch}
    return json.dumps({**facts, "first_loss": run.first_loss})


def _read_facts(text: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(text)
    return facts


def _read_epoch(fields: dict[str, Any]) -> EpochReport:
    return EpochReport(**{**fields, "quality": RankingQuality(**fields["quality"])})
