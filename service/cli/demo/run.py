"""The demonstration, step by step. All that it says is measured in this run; the service is reached over REST only."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.cli.client import ServiceClient
from service.cli.context import Home, open_home
from service.cli.demo.choice import Choice, choose, draw
from service.cli.demo.comparison import SHOWN, ForgottenErasure, RetrainingComparison
from service.cli.demo.environment import DemoOptions, RunningService, demo_home
from service.cli.demo.erased import ErasedAct
from service.cli.demo.measure import DemoEvaluator, make_evaluator
from service.cli.demo.printing import WIDEST, DemoPrinter
from service.cli.demo.report import (
    DatasetFacts,
    DemoReport,
    ErasureFacts,
    PretrainFacts,
    TrainFacts,
)
from service.cli.failures import Refusal
from service.cli.learn import default_told, epochs_told, steps_told
from service.cli.terminal import Terminal, count, duration, make_console, write_json
from service.interactions.datasets import find_dataset
from service.interactions.importing import import_dataset
from service.platform import auth
from service.platform.clock import SystemClock
from service.recommender.backbones import LightGCN
from service.recommender.dataset import Dataset
from service.recommender.defaults import default_training
from service.recommender.training import TrainingConfig
from service.settings import load_settings
from service.unlearning.pretraining import PretrainingConfig
from service.worker.encoders import pretrain
from service.worker.training import BaseConfig, train_base

COMPARED = 100
FORGOTTEN_WITHIN_S = 120.0
POLL_S = 0.02
WHOLE_S = 110.0
"""A second retraining is done where all ends within so many seconds: the demonstration is to end within two minutes."""
ERASED_OVER_TRAINING = 1.4
"""What the compaction at the end is expected to take, over the training and pre-training at the beginning."""

Item = Mapping[str, Any]

PRETRAINING = PretrainingConfig(mode="forget")


@dataclass(frozen=True)
class DemoBase:
    """What training gave, and the evaluator of its base."""

    train: TrainFacts
    pretrain: PretrainFacts
    evaluator: DemoEvaluator


@dataclass(frozen=True)
class DemoSubject:
    """Whose interactions are erased: outside ids, and rows of the base."""

    user_id: str
    item_ids: tuple[str, ...]
    user: int
    items: Any


@dataclass(frozen=True)
class WaitResult:
    """How the wait for the model ended: the erasure's last state, its seconds, and what was answered meanwhile."""

    state: Mapping[str, Any]
    seconds: float
    answers: int
    versions: tuple[int, ...]


class DemoRun:
    """Runs the demonstration and prints it on standard output (on standard error where the JSON goes there).

    Args:
        plan: what was asked for.
        training: settings of the base; without any, those that `expunge train` takes for so many interactions.
        pretraining: settings of the influence encoder.
    """

    def __init__(
        self,
        plan: DemoOptions,
        training: TrainingConfig | None = None,
        pretraining: PretrainingConfig = PRETRAINING,
    ) -> None:
        self.plan, self.training, self.pretraining = plan, training, pretraining
        console = make_console(sys.stderr if str(plan.json_file) == "-" else sys.stdout, widest=WIDEST)
        self.terminal, self.show = Terminal(console), DemoPrinter(console)
        self.titles: Mapping[str, str] = {}
        self.started = time.monotonic()

    def run(self) -> DemoReport:
        """All steps; the service is ended at the end unless it is to be kept."""
        self.started = time.monotonic()
        if self.plan.left_aside:
            names = ", ".join(self.plan.left_aside)
            self.show.say(f"Left aside, for the demonstration has a home of its own: {names}.")
        with demo_home(self.plan) as folder, open_home(load_settings(home=folder), upgrade=True) as home:
            outcome = self._steps(home)
        if self.plan.json_file is not None:
            write_json(self.plan.json_file, outcome.document())
        self.show.say(f"Told in {duration(time.monotonic() - self.started)}; every figure was measured in this run.")
        return outcome

    def _steps(self, home: Home) -> DemoReport:
        dataset = self._data()
        learnt = self._learn(home, dataset)
        at, scopes = SystemClock().now(), frozenset({auth.Scope.ADMIN})
        key = home.database.transact(lambda connection: auth.create_key(connection, "demonstration", scopes, at))
        service = RunningService(home.settings.home, keep=self.plan.keep)
        kept = False
        try:
            self._serve(service)
            with closing(ServiceClient(service.url, key.token, timeout_s=30.0)) as client:
                outcome = self._over_rest(home, client, dataset, learnt)
            kept = self.plan.keep
        finally:
            if not kept:
                service.stop()
        if kept:
            self._keep(service, key.token, outcome)
        return outcome

    def _data(self) -> Dataset:
        self.show.section("1. Data")
        with self.terminal.step("Reading", "bytes") as progress:
            plan = self.plan
            found = find_dataset(plan.data, plan.data_dir, plan.cache, how=plan.how, progress=progress)
        dataset = found.dataset
        self.titles = dataset.titles
        self.show.say(" ".join((found.note, *found.remarks)))
        self.show.say(
            f"{len(dataset.users):,} people, {len(dataset.items):,} items, {len(dataset.train):,} interactions to "
            f"learn from. {len(dataset.test):,} more are held out: no model sees them."
        )
        return dataset

    def _learn(self, home: Home, dataset: Dataset) -> DemoBase:
        self.show.section("2. A recommender learns, and learns to forget")
        with self.terminal.step("Recording", "interactions") as progress:
            import_dataset(home.database, home.identity, dataset, progress)
        training = self.training or default_training(len(dataset.train))
        config = BaseConfig(LightGCN(), training)
        parts = (home.database, home.store, home.settings)
        if self.training is None:
            self.show.say(f"LightGCN, {default_told(training.embedding_size, len(dataset.train))}")
        with self.terminal.step("Training", "epochs", training.epochs) as progress:
            base = train_base(*parts, config, epochs_told(progress))
        evaluator = make_evaluator(home, dataset, base.version)
        quality = evaluator.quality(evaluator.base.state.readout)
        self.show.say(
            f"Recall@20 {quality.recall_at_20:.4f}, NDCG@20 {quality.ndcg_at_20:.4f} on the held-out part. This is "
            f"version {base.version}."
        )
        self.show.say(
            "To forget without training, it is compared with a shadow: one more model, trained without a few of the "
            "interactions, which shows what such pairs score when they were never learnt."
        )
        with self.terminal.step("Pre-training", "epochs") as progress:
            encoder = pretrain(*parts, self.pretraining, steps_told(progress))
        return DemoBase(
            TrainFacts(base.training.seconds, base.training.epochs, quality.recall_at_20, quality.ndcg_at_20),
            PretrainFacts(encoder.pretraining.seconds, self.pretraining.steps),
            evaluator,
        )

    def _serve(self, service: RunningService) -> None:
        self.show.section("3. The service")
        seconds = service.start()
        self.show.say(
            f"API, worker and stream server are up, each a process of its own, after {duration(seconds)}. "
            f"From here on everything goes over REST: {service.url}"
        )

    def _over_rest(self, home: Home, client: ServiceClient, dataset: Dataset, base: DemoBase) -> DemoReport:
        subject = _subject(base.evaluator)
        before = self._recommended(client, subject)
        one = self._erase(client, subject, before)
        many = self._erase_many(client, base.evaluator, subject)
        comparison_run = RetrainingComparison(
            self.terminal, self.show, base.evaluator, self.titles, self._second_retraining_until(base)
        )
        comparison, facts = comparison_run.run(home, one, many)
        self._audit(client, one.facts, many.facts)
        erased = ErasedAct(self.terminal, self.show, client).run(
            one.facts.id, one.salt, subject.user_id, subject.item_ids
        )
        sizes = (len(dataset.users), len(dataset.items), len(dataset.train), len(dataset.test))
        data = DatasetFacts(dataset.name, *sizes)
        report = DemoReport(data, base.train, base.pretrain, one.facts, comparison, facts, erased)
        self.show.section("12. In short")
        self.show.summary(report)
        return report

    def _second_retraining_until(self, base: DemoBase) -> float:
        erasing = ERASED_OVER_TRAINING * (base.train.seconds + base.pretrain.seconds)
        return self.started + WHOLE_S - erasing

    def _recommended(self, client: ServiceClient, subject: DemoSubject) -> list[Item]:
        self.show.section(f"4. Ten recommendations for user {subject.user_id}")
        answer = client.recommendations(subject.user_id, COMPARED)
        self.show.titles(answer["items"][:SHOWN], f"Version {answer['model_version']} recommends")
        return list(answer["items"])

    def _erase(self, client: ServiceClient, subject: DemoSubject, before: Sequence[Item]) -> ForgottenErasure:
        known = client.interactions(subject.user_id)
        n_erased = len(subject.item_ids)
        self.show.section(f"5. User {subject.user_id} wants {n_erased} of {len(known)} interactions erased")
        titles = {each["item_id"]: each.get("title") or each["item_id"] for each in known}
        for item_id in subject.item_ids:
            self.show.say(f"   - {titles.get(item_id, item_id)}")
        ranks = self._ranks(client, subject)
        pairs = [{"user_id": subject.user_id, "item_id": item_id} for item_id in subject.item_ids]
        started = time.perf_counter()
        accepted = client.erase({"interactions": pairs, "mode": "forget"})
        accept_s = time.perf_counter() - started
        n_left = len(client.interactions(subject.user_id))
        hidden_s = time.perf_counter() - started
        self.show.say(
            f"POST /v1/erasures: accepted after {duration(accept_s)}. In that one transaction it was stored, hidden "
            f"and written to the log; {accepted['matched']} of {accepted['requested']} were on record."
        )
        ranks_now = self._ranks(client, subject)
        waited = self._await(client, subject.user_id, accepted["id"], started)
        self.show.say(
            f"Hidden at once: the next read, done {duration(hidden_s)} after the call began, shows {n_left} "
            f"interactions. Asked without leaving out what was seen, the first {COMPARED} held {len(ranks)} of the "
            f"{n_erased}{_listed(ranks)}; right after the call {len(ranks_now) or 'none'}."
        )
        self._forgotten(client, subject, waited, before)
        rows = np.stack((np.full(n_erased, subject.user), subject.items))
        return ForgottenErasure(_facts(accepted, accept_s, waited), rows, accepted["salt"])

    def _erase_many(self, client: ServiceClient, evaluator: DemoEvaluator, chosen: DemoSubject) -> ForgottenErasure:
        edges = evaluator.base.state.graph.edges.long().cpu().numpy()
        pairs = draw(edges, Choice(chosen.user, chosen.items, 0))
        n_pairs, n_users = pairs.shape[1], len(np.unique(pairs[0]))
        share = n_pairs / edges.shape[1]
        self.show.section(f"7. {n_pairs:,} interactions of {n_users:,} people, {share:.0%} of all, at random")
        self.show.say("Five pairs show what happens; whether it is right takes many, of all kinds, in one call more.")
        body = [{"user_id": evaluator.users[user], "item_id": evaluator.items[item]} for user, item in pairs.T.tolist()]
        started = time.perf_counter()
        accepted = client.erase({"interactions": body, "mode": "forget"})
        accept_s = time.perf_counter() - started
        waited = self._await(client, chosen.user_id, accepted["id"], started)
        self.show.say(
            f"Accepted and hidden after {duration(accept_s)}, forgotten by the model after {duration(waited.seconds)}: "
            f"{_stages(waited.state)}."
        )
        return ForgottenErasure(_facts(accepted, accept_s, waited), pairs, accepted["salt"])

    def _ranks(self, client: ServiceClient, subject: DemoSubject) -> list[int]:
        """Ranks of the items in question where nothing seen is left out."""
        answer = client.recommendations(subject.user_id, COMPARED, exclude_seen=False)
        return [item["rank"] for item in answer["items"] if item["item_id"] in subject.item_ids]

    def _await(self, client: ServiceClient, user_id: str, erasure_id: str, started: float) -> WaitResult:
        """Ask until the model has forgotten it, and for recommendations all the while."""
        versions: list[int] = []
        while time.perf_counter() - started < FORGOTTEN_WITHIN_S:
            state = client.erasure(erasure_id)
            if state["status"] == "forgotten":
                seconds = time.perf_counter() - started
                versions.append(client.recommendations(user_id)["model_version"])
                return WaitResult(state, seconds, len(versions), tuple(versions))
            if state["status"] == "needs_attention":
                msg = (
                    f"The erasure needs attention ({state['needs']}): it stays hidden, the model has not forgotten it."
                )
                raise Refusal(msg)
            versions.append(client.recommendations(user_id)["model_version"])
            time.sleep(POLL_S)
        msg = f"The erasure was hidden but not forgotten within {FORGOTTEN_WITHIN_S:g} s."
        raise Refusal(msg)

    def _forgotten(
        self, client: ServiceClient, subject: DemoSubject, waited: WaitResult, before: Sequence[Item]
    ) -> None:
        state = waited.state
        self.show.section(f"6. Forgotten by the model after {duration(waited.seconds)}")
        self.show.say(
            f"Version {state['version_before']} -> {state['version_after']}: {_stages(state)}. Meanwhile "
            f"{count(waited.answers, 'requests')} for recommendations were answered, the last by version "
            f"{waited.versions[-1]}."
        )
        self.show.say(
            "The gate is what a version must pass before it may serve: what was erased has to score as if it had never "
            "been learnt, neither higher nor far lower, and all the rest must be as good as before."
        )
        after = client.recommendations(subject.user_id, COMPARED)["items"]
        self.show.moves(before, after, SHOWN)

    def _audit(self, client: ServiceClient, *erasures: ErasureFacts) -> None:
        self.show.section("10. What the log says of it")
        ids, versions = {each.id for each in erasures}, {each.version_after for each in erasures}
        entries = [
            entry for entry in client.audit() if entry.get("erasure_id") in ids or entry.get("version") in versions
        ]
        self.show.audit(entries)
        self.show.say("It holds counts, versions and hashes; it names neither a user nor an item.")

    def _keep(self, service: RunningService, token: str, outcome: DemoReport) -> None:
        self.show.section("The service goes on")
        self.show.say(f"Its home is {service.home}. Try:")
        bearer = '-H "Authorization: Bearer $EXPUNGE_API_KEY"'
        self.show.verbatim(f"  export EXPUNGE_URL={service.url} EXPUNGE_API_KEY={token}")
        self.show.verbatim(f"  curl -s {bearer} $EXPUNGE_URL/v1/erasures/{outcome.erasure.id}")
        self.show.verbatim(f"  curl -s {bearer} $EXPUNGE_URL/v1/models/versions/{outcome.erasure.version_after}")
        self.show.verbatim(f"  kill {service.pid}    # stops it")


def _subject(evaluator: DemoEvaluator) -> DemoSubject:
    graph = evaluator.base.state.graph
    items = evaluator.base.state.readout[graph.n_users :].cpu().numpy()
    choice = choose(graph.edges.long().cpu().numpy(), items, graph.n_users)
    names = tuple(evaluator.items[row] for row in choice.items.tolist())
    return DemoSubject(evaluator.users[choice.user], names, choice.user, choice.items)


def _facts(accepted: Item, accept_s: float, waited: WaitResult) -> ErasureFacts:
    state = waited.state
    return ErasureFacts(
        id=accepted["id"],
        requested=accepted["requested"],
        matched=accepted["matched"],
        seconds_accept=accept_s,
        seconds_forgotten=waited.seconds,
        seconds_apply=state["stages"]["applied"]["seconds"],
        version_before=state["version_before"],
        version_after=state["version_after"],
        fine_tune_epochs=int((state["gate"] or {}).get("fine_tune_epochs", 0)),
    )


def _stages(state: Mapping[str, Any]) -> str:
    """Where the time went."""
    took = {stage: duration(each["seconds"]) for stage, each in state["stages"].items() if each.get("seconds")}
    epochs = (state["gate"] or {}).get("fine_tune_epochs", 0)
    tuned = f" with {count(epochs, 'epochs')} of fine-tuning" if epochs else ""
    return (
        f"waited for its batch {took.get('queued', '-')}, unlearning step {took.get('applied', '-')}{tuned}, gate "
        f"{took.get('gated', '-')}, written and checked {took.get('published', '-')}"
    )


def _listed(ranks: Sequence[int]) -> str:
    return f" (at {', '.join(str(rank) for rank in ranks)})" if ranks else ""
