"""From a configuration to a job that can run: the plan, the rows, their tokens, and every refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from rankwise import config as configuration
from rankwise import data, planning
from rankwise.config import Config
from rankwise.data.names import with_names
from rankwise.errors import UserError
from rankwise.inference.latency import in_words
from rankwise.machine.precision import precision_of
from rankwise.machine.processes import this_process
from rankwise.methods import method_of
from rankwise.models import tokenizer_of
from rankwise.models.sources import locate, weights_identity
from rankwise.planning.steps import total_steps
from rankwise.runs.folder import Run
from rankwise.scoring.goals import Goal, goal_of
from rankwise.training import latency
from rankwise.training.examples import Augmentation, Examples, tokenised
from rankwise.training.objective import Objective, objective
from rankwise.training.optimizers import check_optimizer
from rankwise.training.schedules import warmup_steps

# Where rows lie may change between a run and its resume; which rows they are may not, and that is checked.
_PLACES = ("train", "validation", "test")
_LENGTH = ("train.epochs", "train.steps")


@dataclass
class Job:
    """What is settled before training starts. `config` is resolved: it has numbers for rank, alpha and lengths."""

    config: Config
    run: Run
    plan: planning.Plan
    roles: data.Roles
    tokenizer: Any
    training: Examples
    validation: Examples | None
    objective: Objective
    goal: Goal
    total_steps: int
    console: Console
    base: str | None
    """`weights_identity` of a base that is named by its folder"""

    @property
    def label_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return self.roles.label_names


def prepare(config: Config, run: Run, console: Console, load_data: Callable[..., data.Roles]) -> Job:
    """Everything before training, cheapest checks first; nothing is written.

    Raises: UserError for anything the user can mend, BudgetError before any weight is read.
    """
    if config.data.train is None:
        raise UserError("data.train is missing: name a file, a folder, a Hub data set or packaged:bbc-news")
    if config.data.num_labels is not None:
        planning.require_fit(planning.plan(config))
    names = ["train"] + (["validation"] if config.train.evaluate else [])
    roles = load_data(config.data, roles=[*names, "test"])
    plan = planning.plan(config, num_labels=len(roles.label_names))
    planning.require_fit(plan)
    goal = goal_of(config.train.select.metric, "train.select.metric")
    goal.check(roles.label_names, multi_label=config.data.multi_label)
    if not config.model.random_weights:
        locate(config.model)  # checks the files before anything is tokenised or written
    tokenizer = tokenizer_of(config.model)
    assert roles.train is not None
    steps = total_steps(len(roles.train), config.train)
    loss = _check_options(plan, roles.train, steps)
    plan = _within_ms(plan, run, roles, tokenizer, console)
    training = training_examples(roles.train, roles.label_names, tokenizer, plan)
    length = training.tokens.max_length
    validation = None
    if roles.validation is not None and config.data.folds is None:
        validation = Examples(tokenised(roles.validation, tokenizer, length, plan), roles.validation.labels)
        roles.report.add_tokens("validation", validation.tokens)
    roles.report.add_tokens("train", training.tokens)
    sizes = msgspec.structs.replace(roles.data, num_labels=len(roles.label_names), max_length=length)
    resolved = msgspec.structs.replace(plan.config, data=sizes)
    in_folder = Path(config.model.name).is_dir() and not config.model.random_weights
    base = weights_identity(config.model, config.train.seed) if in_folder else None
    if config.train.refit_steps is not None and this_process().num_processes > 1:
        raise UserError("train.refit_steps cannot apply to several processes: leave it out, or train in one")
    _same_as_before(run, resolved, roles, base)
    return Job(resolved, run, plan, roles, tokenizer, training, validation, loss, goal, steps, console, base)


def _check_options(plan: planning.Plan, train: data.Rows, steps: int) -> Objective:
    """The loss, after refusing what the plan cannot know to be impossible: before texts are tokenised or weights read.

    Raises: UserError.
    """
    config = plan.config
    precision_of(config.model.precision, plan.engine)
    check_optimizer(config.train)
    warmup_steps(config.train, steps)
    return objective(config.train, train.labels, plan.num_labels, multi_label=config.data.multi_label)


def _within_ms(plan: planning.Plan, run: Run, roles: data.Roles, tokenizer: Any, console: Console) -> planning.Plan:
    """The plan whose single texts are answered within `budget.max_ms`: a run that goes on has been measured already.

    Raises: BudgetError.
    """
    if plan.config.budget.max_ms is None:
        return plan
    if (run.path / "config.yaml").exists():
        length = plan.config.data.max_length or run.config.data.max_length
        return plan if length is None else latency.with_length(plan, length)
    assert roles.train is not None
    plan, before = latency.within(plan, roles.train, roles.label_names, tokenizer)
    if before is not None:
        console.print(f"before training, {in_words(before, plan.config.budget.max_ms)}", highlight=False)
    return plan


def training_examples(rows: data.Rows, label_names: Sequence[str], tokenizer: Any, plan: planning.Plan) -> Examples:
    """The training rows, which alone are augmented, and texts of the classes' names where those are asked for."""
    config = plan.config
    if config.data.name_texts:
        rows = with_names(rows, label_names)
    tokens = tokenised(rows, tokenizer, config.data.max_length, plan)
    if not config.data.augment:
        return Examples(tokens, rows.labels)
    changes = Augmentation(
        rows.texts, config.data.augment, tokenizer, tokens.max_length, tokens.truncation, config.train.seed
    )
    return Examples(tokens, rows.labels, changes)


def _same_as_before(run: Run, resolved: Config, roles: data.Roles, base: str | None) -> None:
    """A resume must be of the same run: the schedule, the order of rows and the model depend on every key and row."""
    if not (run.path / "config.yaml").exists():
        return
    before, now = configuration.to_dict(run.config), configuration.to_dict(resolved)
    recorded = run.record.data if run.is_recorded else {}
    if recorded:
        before["data"] |= {place: now["data"][place] for place in _PLACES if place in recorded}
    if base is not None and run.is_recorded and run.record.base == base:  # the same weights in another folder
        before["model"]["name"] = now["model"]["name"]
    asked, there = now["head"]["probe_rows"], before["head"]["probe_rows"]
    if method_of(resolved).solved_at_once and there and there < (asked or len(roles.train or ())):
        before["head"]["probe_rows"] = asked  # of which a clock left time for fewer
    changed = [
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in now.items()
        for key in (value if isinstance(value, dict) else [section])
        if (before[section][key] != value[key] if isinstance(value, dict) else before[section] != value)
    ]
    if changed and changed[0] in _LENGTH:
        raise UserError(
            f"{run.path} was started with another {changed[0]}, and its learning rates were planned for that length: "
            "it cannot be made longer; train anew with --out ANOTHER"
        )
    if changed:
        raise UserError(f"{run.path} was started with another {changed[0]}: resume with the same configuration")
    for role, rows in roles.named().items():
        if role != "test" and role in recorded and recorded[role].sha256 != rows.sha256:
            raise UserError(f"{run.path} was started with other {role} rows: resume with the data as they were")
