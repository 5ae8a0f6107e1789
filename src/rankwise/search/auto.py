"""`auto`: from a file of labelled texts to a classifier, within a budget of parameters and of minutes.

It measures how fast this machine trains, plans runs that fit the clock, lets a few designs compete by successive
halving, finishes the best one, and says why. Every choice is made on validation rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from rankwise import config as configuration
from rankwise import files, planning
from rankwise.config import Config
from rankwise.errors import UserError
from rankwise.search.columns import guess
from rankwise.search.driver import COPY, RECORD, search
from rankwise.search.speed import Speed, measure
from rankwise.search.strategies import Round, cost, survivors
from rankwise.search.trial import load_data

DEFAULT_MODEL = "packaged:all-MiniLM-L6-v2"
FACTOR = 3
RUNGS = 3
# Shares of the clock: what measuring may take, and what is kept back for a machine that slows down.
_MEASURE_SHARE, _MARGIN_SHARE, _END_SHARE = 0.03, 0.04, 0.02
_END_S = 4.0
_FLOOR_S = 3e-4
"""of a training row"""
_SLOWER = 1.3
"""How much slower than measured the end may score."""
_FIELDS = (9, 6, 3, 1)
"""Designs that may compete; fewer when the runs would become too short."""
_WANTED_EPOCHS, _MOST_EPOCHS = 2.5, 12.0
_FEWEST_STEPS = 120
"""Below either, fewer designs compete; above the most epochs, time is left rather than spent."""
_EVALUATIONS = FACTOR ** (RUNGS - 1)
_EVALUATIONS_ALONE = 4
"""of a whole run: where designs compete, the rungs need one each; a design alone spends its time on training"""
_LENGTHS = (256, 128, 64)
"""Tokens kept of long texts, the fewer the less time there is."""
_ENOUGH_STEPS = 300
"""that an epoch of 128 tokens must have; shorter texts are for those that cannot"""
_RATE, _RATE_STEPS = 1e-3, 600
_LOWEST_RATE, _HIGHEST_RATE = 3e-4, 3e-3
_LARGE_ROWS = 5_000

ALL: dict[str, Any] = {"adapter.scope": "all"}
ATTENTION: dict[str, Any] = {"adapter.scope": ["query", "key", "value", "attention_output"]}
QUERY_VALUE: dict[str, Any] = {"adapter.scope": ["query", "value"]}


@dataclass(frozen=True)
class Schedule:
    """What fits the clock."""

    designs: int
    steps: int
    epochs: float
    eval_every: int
    train_s: float
    reserve_s: float


def auto(
    data: str,
    overrides: Sequence[str] = (),
    *,
    max_params: str | int = "1M",
    max_minutes: float = 15.0,
    out: str | Path | None = None,
    console: Console | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Train the best classifier that the budget and the clock allow; returns what search.json says.

    data
        Labelled texts: a file, a folder of class folders, a Hub data set or packaged:bbc-news.
    overrides
        `key=value` words that are kept as they are, such as data.test=FILE or model.name=roberta-base.
    started
        `time.time()` from which the minutes count; now by default.

    Raises: UserError for data that cannot be read and a clock too short for one run.
    """
    started = started or time.time()
    console = console or Console(stderr=True)
    if max_minutes <= 0:
        raise UserError(f"--max-minutes must be above zero, got {max_minutes:g}")
    folder = Path(out) if out else Path("searches") / f"auto-{Path(data).stem or data}"
    if (folder / COPY).is_file():
        raise UserError(
            f"{folder} holds a search already: go on with  rankwise search --out {folder} --resume, "
            "or choose another with --out"
        )
    for key in ("train.epochs", "train.eval_every"):
        if any(word.startswith(f"{key}=") for word in overrides):
            raise UserError(f"{key} is what auto plans by the clock: leave it out, or fix train.steps")
    for key, instead in (("budget.max_trainable", "--max-params"), ("data.train", "the data's own place")):
        if any(word.startswith(f"{key}=") for word in overrides):
            raise UserError(f"{key} cannot be given beside {instead}: name it there")
    ends = started + 60 * max_minutes
    tree, fixed = _base(data, overrides, max_params)
    config = configuration.from_dict(tree)
    roles = load_data(config.data, ["train", "validation", "test"])
    config, speed, schedule = _fit_clock(tree, roles, ends, 60 * max_minutes)
    designs = _designs(config, fixed, len(roles.label_names), schedule.steps)[: schedule.designs]
    lines = _facts(data, config, roles, speed, schedule, designs)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    record = search(
        _search_tree(tree, config, schedule, designs),
        out=folder,
        console=console,
        deadline=ends - schedule.reserve_s,
    )
    lines += _outcome(record, time.time() - started, 60 * max_minutes)
    record["auto"] = {
        "max_params": max_params,
        "max_minutes": max_minutes,
        "minutes": round((time.time() - started) / 60, 2),
        "speed": msgspec.to_builtins(speed),
        "schedule": msgspec.to_builtins(schedule),
        "explanation": lines,
    }
    files.write_json(folder / RECORD, record)
    return record


def _base(data: str, overrides: Sequence[str], max_params: str | int) -> tuple[dict[str, Any], set[str]]:
    """The configuration tree that all designs share, and the keys that the user has fixed."""
    fixed = {word.partition("=")[0] for word in overrides}
    tree: dict[str, Any] = {
        "budget": {"max_trainable": max_params},
        "model": {"name": DEFAULT_MODEL},
        "adapter": {"scope": "all", "rank": "max", "alpha": "2r", "dropout": 0.1},
        "data": {"train": data},
        "train": {"learning_rate": 1e-3, "schedule": "linear", "warmup_ratio": 0.1, "weight_decay": 0.01},
    }
    if not {"data.text", "data.label"} <= fixed:
        text, label = guess(data)
        tree["data"] |= {"text": text, "label": label}
    return configuration.apply_overrides(tree, overrides), fixed


def _fit_clock(tree: dict[str, Any], roles: Any, ends: float, clock_s: float) -> tuple[Config, Speed, Schedule]:
    """Measure, and plan steps; long texts are cut to 256 tokens, to 128 or 64 when there is no time for more."""
    from rankwise import files as storage
    from rankwise.data.tokens import tokenise
    from rankwise.models import tokenizer_of

    config = configuration.from_dict(tree)
    planned = planning.plan(config, len(roles.label_names))
    given = config.data.max_length
    tokens = tokenise(
        roles.train.texts,
        tokenizer_of(config.model),
        given,
        storage.cache("tokens"),
        positions=planned.positions,
    )
    named = tree.get("train", {})
    batch = named.get("batch_size") or (32 if len(roles.train) >= _LARGE_ROWS else 16)
    longest = given or min(tokens.max_length, _LENGTHS[0])
    lengths = [longest] if given else [longest, *(length for length in _LENGTHS if length < longest)]
    for length in lengths:
        config = _with(config, length, batch)
        speed = measure(config, roles, min(20.0, _MEASURE_SHARE * clock_s))
        try:
            schedule = plan_clock(speed, roles, batch, ends - time.time(), clock_s, steps=config.train.steps)
        except UserError:
            if length == lengths[-1]:
                raise
            continue
        if schedule.designs == _FIELDS[0] or schedule.epochs >= 2 * _WANTED_EPOCHS:
            break
        if length <= _LENGTHS[1] and schedule.epochs >= 1 and schedule.steps >= _ENOUGH_STEPS:
            break
    return config, speed, schedule


def _with(config: Config, length: int, batch: int) -> Config:
    replace = msgspec.structs.replace
    return replace(config, data=replace(config.data, max_length=length), train=replace(config.train, batch_size=batch))


def plan_clock(
    speed: Speed, roles: Any, batch: int, left_s: float, clock_s: float, *, steps: int | None = None
) -> Schedule:
    """How many designs compete and how long a whole run is, so that all of it ends within `left_s`.

    steps
        The user's own number of steps, when given: then only the number of designs is planned.

    Raises: UserError when not even one short run fits.
    """
    from rankwise.training import proof
    from rankwise.training.final import TRAIN_SAMPLE_ROWS

    rows = len(roles.train)
    # A run ends with a reload, a proof, a scoring of validation, test and a sample of train, and the floor beside them;
    # what only the end needs is imported then.
    scored = len(roles.validation) + (len(roles.test) if roles.test is not None else 0)
    scored += min(rows, TRAIN_SAMPLE_ROWS) + 2 * proof.ROWS
    reserve = 2 * speed.setup_s + _SLOWER * scored * speed.score_s + _FLOOR_S * rows + _END_S + _END_SHARE * clock_s
    evaluation = len(roles.validation) * speed.score_s
    schedule: Schedule | None = None
    for designs in _FIELDS:
        rungs, evaluations = (RUNGS, _EVALUATIONS) if designs > 1 else (1, _EVALUATIONS_ALONE)
        runs = cost([Round(0, designs, rungs)], FACTOR)
        visits, alive = 0, designs
        for _ in range(rungs):
            visits, alive = visits + alive, survivors(alive, FACTOR)
        room = left_s - reserve - _MARGIN_SHARE * clock_s - visits * speed.setup_s - runs * evaluations * evaluation
        most = max(1, round(_MOST_EPOCHS * rows / batch))
        wanted = min(int(room / runs / speed.step_s), most) if steps is None else steps
        if wanted < evaluations or room < wanted * runs * speed.step_s * 0.99:
            continue
        schedule = Schedule(
            designs=designs,
            steps=wanted,
            epochs=wanted * batch / rows,
            eval_every=-(-wanted // evaluations),
            train_s=wanted * runs * speed.step_s + runs * evaluations * evaluation,
            reserve_s=reserve,
        )
        if steps is not None or (wanted >= _FEWEST_STEPS and schedule.epochs >= _WANTED_EPOCHS):
            return schedule
    if schedule is None:
        raise UserError(
            f"the clock is too short: {left_s:.0f} s are left after reading and measuring, one step takes "
            f"{speed.step_s:.2f} s and an evaluation {evaluation:.0f} s; give more --max-minutes or fewer rows"
        )
    return schedule


def usual_rate(steps: int) -> float:
    """The learning rate to start from for a run of so many steps: the fewer, the higher.

    1e-3 at 600 steps, by the square root of their number: 3e-3 won over lower ones at 60 steps; near a thousand about
    1e-3 did better than 5e-4, in one run each (LOG.md). Two significant digits.
    """
    rate = _RATE * (_RATE_STEPS / steps) ** 0.5
    return float(f"{min(max(rate, _LOWEST_RATE), _HIGHEST_RATE):.1e}")


def _designs(config: Config, fixed: set[str], labels: int, steps: int) -> list[dict[str, Any]]:
    """What competes, likeliest first, without what the user fixed, what is over budget and what comes to the same.

    The learning rate decides most, so it varies most, around the usual one for so many steps; then where the adapters
    sit, always at the largest rank that fits.
    """
    layers = planning.encoder_of(config.model).layers
    top = {"adapter.layers": list(range(layers // 2, layers))}
    usual = usual_rate(steps)

    def at(share: float) -> dict[str, float]:
        return {"train.learning_rate": float(f"{share * usual:.1e}")}

    proposals: list[dict[str, Any]] = [
        {**ALL, **at(1)},
        {**ALL, **at(2)},
        {**ATTENTION, **at(1)},
        {**ALL, **at(0.5)},
        {**QUERY_VALUE, **at(2)},
        {**ALL, **at(1), "head.kind": "output"},
        {**ATTENTION, **at(2), "adapter.dropout": 0.0},
        {**ALL, **top, **at(1)},
        {**QUERY_VALUE, **at(1)},
        {**ALL, **at(3)},
        {**ATTENTION, **at(0.5), "adapter.dropout": 0.0},
        {**ALL, **at(0.2)},
    ]
    kept: dict[str, dict[str, Any]] = {}
    for proposal in proposals:
        design = {key: value for key, value in proposal.items() if key not in fixed}
        tree = configuration.to_dict(config)
        for key, value in design.items():
            configuration.set_key(tree, key, value)
        try:
            planned = planning.plan(configuration.from_dict(tree), labels)
            planning.require_fit(planned)
        except UserError:
            continue
        same = (
            msgspec.structs.replace(planned.config, head=config.head) if planned.groups["head"] == 0 else planned.config
        )
        kept.setdefault(f"{configuration.config_hash(same)} {planned.groups}", design)
    if not kept:
        raise UserError("no design fits the budget: raise --max-params, or see  rankwise plan  for what fits")
    return list(kept.values())


def _search_tree(
    tree: dict[str, Any], config: Config, schedule: Schedule, designs: list[dict[str, Any]]
) -> dict[str, Any]:
    """The search file that auto stands for; its copy in the folder runs again without the clock."""
    base: dict[str, Any] = msgspec.to_builtins(tree)
    configuration.set_key(base, "data.max_length", config.data.max_length)
    configuration.set_key(base, "train.batch_size", config.train.batch_size)
    base["train"].pop("epochs", None)
    base["train"] |= {"steps": schedule.steps, "eval_every": schedule.eval_every}
    made: dict[str, Any] = {"base": base, "axes": {"design": designs}, "strategy": {"name": "factorial"}}
    if schedule.designs > 1:
        made["halving"] = {"factor": FACTOR, "rungs": RUNGS}
    return made


# --- why ----------------------------------------------------------------------------------------------


def _facts(
    data: str, config: Config, roles: Any, speed: Speed, schedule: Schedule, designs: list[dict[str, Any]]
) -> list[str]:
    """What was found and planned, before anything is trained."""
    columns = f"text {config.data.text}, label {config.data.label}" if Path(data).is_file() else "class folders or set"
    rates = sorted({design["train.learning_rate"] for design in designs if "train.learning_rate" in design})
    shown = f", learning rate {rates[0]:g}" if rates else ""
    shown = f", learning rates {rates[0]:g} to {rates[-1]:g}" if len(rates) > 1 else shown
    count = f"{len(designs)} designs" if len(designs) > 1 else "one design"
    return [
        f"data      {len(roles.train):,} rows to train on, {len(roles.validation):,} to choose by, "
        f"{len(roles.label_names)} classes ({columns})",
        f"model     {config.model.name}, texts cut at {config.data.max_length} tokens",
        f"speed     {speed.step_s:.3f} s a step of {config.train.batch_size} texts, {1 / speed.score_s:,.0f} texts/s scored, "
        "measured with the largest scope",
        f"clock     {schedule.train_s:.0f} s of training and evaluation, {schedule.reserve_s:.0f} s kept for the end",
        f"plan      {count} at the largest rank that fits{shown}; a whole run is {schedule.steps:,} steps "
        f"({schedule.epochs:.1f} epochs)",
    ]


def _outcome(record: dict[str, Any], seconds: float, clock_s: float) -> list[str]:
    """What came of it."""
    winner = record["winner"]
    low, high = winner["chosen_ci95"]
    others = [row for row in record["table"] if row["trial"] != winner["trial"] and row["chosen"] is not None]
    next_best = (
        f"; the next best design had {others[0]['chosen']:.4f} after {others[0]['steps']:,} steps" if others else ""
    )
    lines = [
        f"halving   {record['counts']['done']} of {record['counts']['points']} designs were run to the end{next_best}",
        f"winner    {winner['point']['design']}: rank {winner['rank']}, {winner['trainable']:,} trainable parameters",
        f"score     validation accuracy {winner['chosen']:.4f} (95% {low:.4f} to {high:.4f}); "
        f"peak {winner['peak']:.4f}, last {winner['final']:.4f}",
    ]
    if winner["test"]:
        low, high = winner["test"]["accuracy_ci95"]
        lines.append(
            f"test      accuracy {winner['test']['accuracy']:.4f} (95% {low:.4f} to {high:.4f}), looked at once"
        )
    lines.append(f"time      {seconds / 60:.1f} of {clock_s / 60:g} minutes")
    return lines
