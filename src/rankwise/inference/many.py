"""Many saved classifiers at once: those that share a base share its products; any others answer beside them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from rankwise.baselines import words
from rankwise.data.cleaning import preprocess
from rankwise.errors import UserError, nearest
from rankwise.inference import saved as saving
from rankwise.inference.answers import Answers, checked, checked_text
from rankwise.inference.saved import Saved, SavedClassifier
from rankwise.machine.memory import return_freed_memory
from rankwise.machine.settings import own_settings
from rankwise.runs.folder import Run, is_recorded

if TYPE_CHECKING:
    from rankwise.engine.many import ManyClassifier
    from rankwise.engine.mixed import Member
    from rankwise.inference.predictor import Predictor

BATCH_TOKENS = 8192
"""of one pass: enough for the products, few enough that activations stay small"""


@dataclass
class Loaded(Answers):
    """One of many classifiers.

    trunk, member
        Where it shares a base; else `alone` answers.
    tokens
        Classifiers of equal `tokens` read a text as the same ids; empty of words alone.
    """

    name: str
    saved: Saved
    temperature: float
    tokens: str = ""
    trunk: ManyClassifier | None = None
    member: Member | None = None
    alone: Predictor | None = None

    def __post_init__(self) -> None:
        saved = self.saved
        self.label_names, self.multi_label, self.decision = saved.label_names, saved.multi_label, saved.decision

    @property
    def computes_with(self) -> str:
        """The kernels and the precision of its answers."""
        if self.trunk is None:
            return "" if self.alone is None else self.alone.computes_with
        return f"shared {self.trunk.trunk.precision}"


@dataclass
class ManyPredictors:
    """Classifiers by name. Threads may share it; classifiers may be added and removed while it answers."""

    precision: str | None = None
    engine: str | None = None
    threads: int | None = None
    calibrated: bool = False
    base: str | Path | None = None
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    """replaced whole, so that an answer under way keeps what it began with"""
    _trunks: dict[tuple[Any, ...], tuple[ManyClassifier, dict[str, Any]]] = field(default_factory=dict, repr=False)
    """bases, with what each has of a head"""
    _lock: Any = field(default_factory=threading.Lock, repr=False)
    _process: int = field(default_factory=os.getpid, repr=False)

    @property
    def names(self) -> list[str]:
        """Of the classifiers, in the order they were added."""
        return list(self.loaded)

    def __reduce__(self) -> Any:
        """Its pickle is the paths that it was loaded from, as a predictor's is."""
        runs = {name: loaded.saved.folder.resolve() for name, loaded in self.loaded.items()}
        options = {name: getattr(self, name) for name in ("base", "precision", "engine", "threads", "calibrated")}
        return partial(load_many, runs, **options), ()

    # --- coming and going -----------------------------------------------------------------------------

    @own_settings()
    def add(self, name: str, path: str | Path | Run) -> Loaded:
        """Load a classifier under a name, in place of any other of that name.

        Raises: UserError when it cannot be loaded; the others stay as they are.
        """
        saved = saving.read_any(path, base=self.base)
        loaded = Loaded(name, saved, saved.divisor(self.calibrated))
        if isinstance(saved, SavedClassifier):
            loaded.tokens = _tokens_key(saved)
        with self._lock:
            for other in self.loaded.values():
                alike = other.tokens.partition(" ")[0] == loaded.tokens.partition(" ")[0]
                if alike and isinstance(other.saved, SavedClassifier):  # a tokenizer takes a dozen MB
                    saved.__dict__["tokenizer"] = other.saved.tokenizer
            self._place(loaded)
            return_freed_memory()
            self.loaded = {**self.loaded, name: loaded}
        return loaded

    def remove(self, name: str) -> None:
        """Forget a classifier; its base stays until another is loaded and no classifier is on it."""
        with self._lock:
            self.get(name)
            self.loaded = {other: loaded for other, loaded in self.loaded.items() if other != name}

    def get(self, name: str) -> Loaded:
        """The classifier of a name. Raises: UserError when there is none."""
        if name not in self.loaded:
            hint = nearest(name, self.loaded) or f"; there are {', '.join(self.loaded) or 'none'}"
            raise UserError(f"there is no classifier '{name}'{hint}")
        return self.loaded[name]

    def _place(self, loaded: Loaded) -> None:
        """Give a classifier its place on a base, or a network of its own."""
        from rankwise.inference import classifier
        from rankwise.inference.predictor import predictor_of

        saved = loaded.saved
        if (self.engine or saved.engine) == "reference" or not shares(saved):
            loaded.alone = predictor_of(
                saved, precision=self.precision, engine=self.engine, threads=self.threads, calibrated=self.calibrated
            )
            return
        engine = "fast" if classifier.why_not_fast(saved) is None else "reference"  # what it computes with alone
        precision = classifier.precision_for(saved, self.precision, engine)
        key = (saved.base, saved.seed if saved.base is None else None, saved.encoder.pooling, precision)
        if key not in self._trunks:
            used = {id(other.trunk) for other in self.loaded.values()}
            self._trunks = {known: pair for known, pair in self._trunks.items() if id(pair[0]) in used}
            self._trunks[key] = _trunk(saved, precision), classifier.base_head(saved)
        loaded.trunk, head = self._trunks[key]
        loaded.member = loaded.trunk.member(classifier.weights_of(saved, held=head))

    # --- answers --------------------------------------------------------------------------------------

    def logits(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """What each classifier says of every text, raw and fp32. Shape of each: (texts, classes)

        names
            Of the classifiers to ask; all by default.
        """
        asked = [self.get(name) for name in (self.names if names is None else names)]
        logits = self.every_of(checked(texts, readers(asked)), asked)
        return {loaded.name: one for loaded, one in zip(asked, logits, strict=True)}

    def every_of(self, texts: Sequence[str], asked: Sequence[Loaded]) -> list[np.ndarray]:
        """The logits of all texts by classifiers in hand. Shape of each: (texts, classes), one a classifier"""
        found: dict[str, np.ndarray] = {}
        for group in _together(asked):
            found |= self._every(group, texts)
        return [found[loaded.name] for loaded in asked]

    def mixed(self, texts: Sequence[str], names: Sequence[str]) -> list[np.ndarray]:
        """The logits of texts, each by the classifier named beside it, in shared passes. Shape of each: (classes,)"""
        asked = [self.get(name) for name in names]
        pairs = enumerate(zip(texts, asked, strict=True))
        rows = [checked_text(row, text, readers([loaded])) for row, (text, loaded) in pairs]
        return self.mixed_of(rows, asked)

    def mixed_of(self, texts: Sequence[str], asked: Sequence[Loaded]) -> list[np.ndarray]:
        """`mixed` of classifiers in hand."""
        answers: list[Any] = [None] * len(texts)
        rows_of: dict[int, list[int]] = {}
        for row, loaded in enumerate(asked):
            rows_of.setdefault(id(loaded.trunk or loaded.alone), []).append(row)
        for rows in rows_of.values():
            first = asked[rows[0]]
            if first.trunk is None:
                assert first.alone is not None
                logits = first.alone.logits([texts[row] for row in rows])
                for row, one in zip(rows, logits, strict=True):
                    answers[row] = one
                continue
            encoded = _encoded([texts[row] for row in rows], [asked[row] for row in rows])
            for batch in _batches([len(ids) for ids in encoded]):
                members = [asked[rows[place]].member for place in batch]
                given = [encoded[place] for place in batch]
                for place, one in zip(batch, self._pass(first.trunk, first.trunk.mixed, given, members), strict=True):
                    answers[rows[place]] = one
        return answers

    def predict_proba(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Probabilities by each classifier, float64. Shape of each: (texts, classes)"""
        return {name: self.get(name).probabilities(logits) for name, logits in self.logits(texts, names).items()}

    def predict(self, texts: Sequence[str], names: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """The label name of each text by each classifier; a list of names a text where it may carry several."""
        return {name: self.get(name).names_of(p) for name, p in self.predict_proba(texts, names).items()}

    def _every(self, group: Sequence[Loaded], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """What classifiers of one base, that read a text as the same ids, say of every text."""
        first = group[0]
        if first.trunk is None:
            assert first.alone is not None
            return {first.name: first.alone.logits(texts)}
        encoded = _encoded(texts, [first] * len(texts))
        results = [np.zeros((len(texts), len(loaded.label_names)), np.float32) for loaded in group]
        for batch in _batches([len(ids) * len(group) for ids in encoded]):
            members = [loaded.member for loaded in group]
            logits = self._pass(first.trunk, first.trunk.every, [encoded[row] for row in batch], members)
            for result, one in zip(results, logits, strict=True):
                result[batch] = one
        return {loaded.name: result for loaded, result in zip(group, results, strict=True)}

    def _pass(self, trunk: Any, run: Any, *given: Any) -> Any:
        from rankwise.machine.threads import limited_to, of_process
        from rankwise.models.classifier import computing

        with own_settings(), limited_to(of_process(self.threads, self._process)), computing(trunk.trunk):
            return run(*given)


def load_many(
    runs: Sequence[str | Path | Run] | Mapping[str, str | Path | Run],
    *,
    base: str | Path | None = None,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    calibrated: bool = False,
) -> ManyPredictors:
    """Classifiers over as few bases as they have, loaded once.

    runs
        Folders as `load` takes them, named after the run's folder, or a mapping of names.
    base, precision, engine, threads, calibrated
        As `load` has them, for all of them.

    Raises: UserError when one of them cannot be loaded, or two have one name.
    """
    from rankwise.machine.threads import check

    check(threads)
    many = ManyPredictors(precision, engine, threads, calibrated, base)
    named = dict(runs) if isinstance(runs, Mapping) else _named(runs)
    for name, path in named.items():
        many.add(name, path)
    return many


def name_of(path: str | Path | Run) -> str:
    """What a run's folder is called; a folder of an adapter or of words inside a run by the run."""
    folder = Path(path).resolve()
    is_inside = folder.name in ("adapter", words.FOLDER) and not is_recorded(folder)
    return folder.parent.name if is_inside else folder.name


def shares(saved: Saved) -> TypeGuard[SavedClassifier]:
    """Whether a classifier can share its base: of that it changes linear layers, their biases and those of norms alone."""
    from rankwise.inference.classifier import head_names, why_not_fast

    if not isinstance(saved, SavedClassifier) or saved.words is not None:
        return False
    encoder = saved.encoder
    family, adapter = encoder.family, saved.adapter
    changed = {
        *adapter.updates.values(),
        *(name.removesuffix(".bias").removesuffix(".base_layer") for name in adapter.keys),
    }
    adapted = {word for site in encoder.sites if site.module in changed for word in site.words}
    if not adapted.isdisjoint(family.relative_words):  # these layers also read distances, which rows would share
        return False
    if adapter.kind == "IA3":
        if family.why_not_fast(encoder.hf_config) is not None or not _scales_whole_inputs(saved):
            return False
    elif why_not_fast(saved) is not None:
        return False
    known = {f"{site.module}.{wrapped}bias" for site in encoder.sites for wrapped in ("", "base_layer.")}
    if family.arrangement == "post_norm":
        layers = [family.layer.format(index) for index in range(encoder.layers)]
        known |= {f"{layer}.{norm}.bias" for layer in layers for norm in (family.attention_norm, family.ffn_norm)}
        if family.embedding_projection is None:
            known.add(f"{family.prefix}.{family.embedding_norm}.bias")
    return all(
        name in known or name.startswith(head_names(saved)) for name in adapter.keys if name not in adapter.updates
    )


def _scales_whole_inputs(saved: SavedClassifier) -> bool:
    """Whether IA3's scalings are on layers known here, and those of inputs on layers that have theirs to themselves."""
    words = {site.module: site.word for site in saved.encoder.sites}
    shapes = {module: saved.adapter.shapes[name] for name, module in saved.adapter.updates.items()}
    return all(
        module in words and (shape[0] != 1 or words[module] not in ("query", "key", "value"))
        for module, shape in shapes.items()
    )


def _named(runs: Sequence[str | Path | Run]) -> dict[str, str | Path | Run]:
    if isinstance(runs, (str, Path)):
        raise UserError("expected a list of runs, got one path: wrap it in a list")
    named: dict[str, str | Path | Run] = {}
    for path in runs:
        name = name_of(path)
        if name in named:
            raise UserError(
                f"{Path(named[name])} and {Path(path)} have one name, '{name}': give names, as in {{'first': RUN, 'second': RUN}}"
            )
        named[name] = path
    return named


def _trunk(saved: SavedClassifier, precision: str) -> ManyClassifier:
    """The base of a classifier with nothing on its layers."""
    from rankwise.engine import FastClassifier
    from rankwise.engine.many import ManyClassifier
    from rankwise.inference.classifier import weights_of
    from rankwise.machine.device import device

    encoder = saved.encoder
    weights = weights_of(saved, only_head=True)
    config = dict(encoder.hf_config)
    made = FastClassifier(weights, encoder.model_type, config, precision=precision)
    return ManyClassifier(made.eval().to(device()))


def _tokens_key(saved: SavedClassifier) -> str:
    """Classifiers of equal keys read a text as the same token ids, those of an equal first word with one tokenizer."""
    for folder in (saved.folder, saved.base):
        if folder is not None and (folder / "tokenizer.json").is_file():
            content = (folder / "tokenizer.json").read_bytes()
            break
    else:
        backend = saved.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        content = backend.to_str().encode("utf-8", "replace")
    tokenizer = hashlib.blake2b(content + str(saved.embedding_rows).encode(), digest_size=16).hexdigest()
    return f"{tokenizer} {saved.max_length} {saved.truncation} {saved.preprocess}"


def _together(asked: Sequence[Loaded]) -> list[list[Loaded]]:
    """Classifiers that one pass can answer for: of one base, reading a text as the same ids."""
    groups: dict[Any, list[Loaded]] = {}
    for loaded in asked:
        key = id(loaded) if loaded.trunk is None else (id(loaded.trunk), loaded.tokens)
        groups.setdefault(key, []).append(loaded)
    return list(groups.values())


def _encoded(texts: Sequence[str], asked: Sequence[Loaded]) -> list[Any]:
    """Every text's token ids, as its classifier reads it. Shape of each: (tokens,)"""
    rows_of: dict[str, list[int]] = {}
    for row, loaded in enumerate(asked):
        rows_of.setdefault(loaded.tokens, []).append(row)
    ids: list[Any] = [None] * len(texts)
    for rows in rows_of.values():
        saved = asked[rows[0]].saved
        assert isinstance(saved, SavedClassifier)
        cleaned = preprocess([texts[row] for row in rows], saved.preprocess)
        for row, one in zip(rows, saved.tokens_of(cleaned), strict=True):
            ids[row] = one
    return ids


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of similar length together, by number, at most `BATCH_TOKENS` a batch where a text is not longer."""
    batches: list[list[int]] = []
    tokens = BATCH_TOKENS
    for row in np.argsort(lengths, kind="stable").tolist():
        if tokens + lengths[row] > BATCH_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(row)
        tokens += lengths[row]
    return batches


def readers(asked: Sequence[Loaded]) -> dict[str, bool]:
    """Classifiers as `checked` names them, and whether each reads pairs."""
    return {f"'{loaded.name}'": loaded.saved.pair for loaded in asked}
