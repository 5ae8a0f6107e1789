"""The routes: classify, models, the schema of Text Embeddings Inference, health, metrics and a page."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from rankwise import __version__
from rankwise.errors import UserError
from rankwise.inference.answers import checked
from rankwise.inference.many import Loaded, readers
from rankwise.scoring.decisions import THRESHOLD, thresholds
from rankwise.serve import collection as collections
from rankwise.serve.batching import Batcher, Full
from rankwise.serve.collection import Collection
from rankwise.serve.guard import Guard
from rankwise.serve.limits import Limits
from rankwise.serve.workers import Change, Link, summed

RETRY_AFTER_S = 1
_PAGE = Path(__file__).with_name("page.html")


class Classify(BaseModel):
    """Texts to classify."""

    model_config = ConfigDict(extra="forbid")
    texts: list[str | tuple[str, str]] = Field(
        min_length=1, description="the texts; of a classifier of pairs, each a list of two"
    )
    model: str | None = Field(None, description="a classifier's name; all of them answer where it is null")


class Answer(BaseModel):
    """What a classifier says of one text."""

    labels: list[str] = Field(description="the most probable label, or those the text carries")
    probabilities: dict[str, float]
    threshold: float | None = Field(description="from which a label is carried, where a text may carry several")
    thresholds: dict[str, float] | None = Field(None, description="the same by label, where they were fitted")


class Classified(BaseModel):
    """Answers by classifier, in the order of the texts."""

    results: dict[str, list[Answer]]


class Predict(BaseModel):
    """The request of Text Embeddings Inference's /predict: a text, a pair, or a batch of lists of one text or two."""

    inputs: str | list[str] | list[list[str]]
    raw_scores: bool = False
    truncate: bool = True


class Score(BaseModel):
    """A label and its probability, or its raw score."""

    score: float
    label: str


class Service:
    """What the routes share.

    link
        To the first process, where this is one of several workers.
    """

    def __init__(self, collection: Collection, limits: Limits, link: Link | None = None) -> None:
        self.collection, self.limits, self.link = collection, limits, link
        self.batcher = Batcher(collection.many, limits.queued_texts)
        self.ready = True
        self.registry = CollectorRegistry()
        self.requests = Counter("rankwise_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("rankwise_request_seconds", "Until the answer", ["path"], registry=self.registry)
        self.texts = Counter("rankwise_texts", "Texts classified", ["model"], registry=self.registry)
        for name, text, value in (
            ("rankwise_waiting_answers", "Asked for and not given", lambda: self.batcher.waiting),
            ("rankwise_models", "Classifiers loaded", lambda: len(collection.many.loaded)),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def apply(self, change: Change) -> Any:
        """Carry out a change in this process. Raises: UserError."""
        if change == ("metrics",):
            return generate_latest(self.registry).decode()
        self.collection.apply(change)
        return None

    async def everywhere(self, change: Change) -> list[Any]:
        """Carry out a change in every process that answers; what each says of it. Raises: UserError."""
        if self.link is None:
            return [await asyncio.to_thread(self.apply, change)]
        return await asyncio.to_thread(self.link.everywhere, change)

    def named(self, name: str | None) -> list[Loaded]:
        """The classifier of a name, or all. Raises: HTTPException 404."""
        loaded = self.collection.many.loaded
        if name is None:
            return list(loaded.values())
        if name not in loaded:
            raise HTTPException(404, f"there is no classifier '{name[:100]}'")
        return [loaded[name]]

    async def logits(self, texts: Sequence[str | tuple[str, str]], asked: Sequence[Loaded]) -> list[np.ndarray]:
        """Shape of each: (texts, classes), one a classifier.

        Raises: HTTPException 413, 422, 429 or 503.
        """
        if len(texts) > self.limits.texts:
            raise HTTPException(413, f"{len(texts):,} texts, at most {self.limits.texts:,} may come in a request")
        longest = max((len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts), default=0)
        if longest > self.limits.text_chars:
            raise HTTPException(413, f"a text has {longest:,} characters, at most {self.limits.text_chars:,} may come")
        if not asked:
            raise HTTPException(503, "no classifier is loaded")
        try:
            rows = checked(texts, readers(asked))
            logits = await asyncio.wait_for(self.batcher.logits(rows, asked), self.limits.answer_s)
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Full:
            raise HTTPException(429, "too many texts wait", headers={"Retry-After": str(RETRY_AFTER_S)}) from None
        except asyncio.TimeoutError:
            raise HTTPException(503, "no answer in time", headers={"Retry-After": str(RETRY_AFTER_S)}) from None
        for loaded in asked:
            self.texts.labels(loaded.name).inc(len(texts))
        return logits


def make_app(service: Service, *, token: str | None = None) -> Guard:
    """The ASGI application of a service, its guard around it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.ready = False
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(title="Rankwise", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _measure(app, service)
    _add_refusals(app)
    _add_answers(app, service)
    _add_models(app, service)
    _add_health(app, service)
    return Guard(app, service.limits, token)


def _measure(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def measured(request: Request, call: Callable[[Request], Any]) -> Response:
        started = time.perf_counter()
        response: Response = await call(request)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        service.requests.labels(path, str(response.status_code)).inc()
        service.seconds.labels(path).observe(time.perf_counter() - started)
        return response


def _add_refusals(app: FastAPI) -> None:
    """What was wrong in ASCII, and without what was sent: halves of characters and no numbers (NaN) are in no JSON."""

    def refused(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
        return Response(json.dumps({"detail": detail}), status, headers, media_type="application/json")

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> Response:
        return refused(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refused(422, [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()])


def _add_answers(app: FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        code: {"description": text}
        for code, text in {404: "no such classifier", 413: "too large", 429: "too much waits", 503: "no answer"}.items()
    }

    @app.post("/v1/classify", response_model=Classified, responses=refusals)
    async def classify(asked: Classify) -> Any:
        """Labels and probabilities of texts, by one classifier or by all."""
        classifiers = service.named(asked.model)
        found = await service.logits(asked.texts, classifiers)
        return JSONResponse(
            {"results": {one.name: _answers(one, logits) for one, logits in zip(classifiers, found, strict=True)}}
        )

    @app.post("/predict", response_model=list[Score] | list[list[Score]], responses=refusals)
    async def predict(
        asked: Annotated[Predict, Body()],
        model: Annotated[str | None, Query(description="which classifier, where there are several")] = None,
    ) -> Any:
        """As Text Embeddings Inference answers, most probable label first."""
        texts, single = _inputs(asked.inputs)
        classifiers = service.named(model)
        if len(classifiers) > 1:
            raise HTTPException(422, "there are several classifiers: name one with ?model=NAME")
        (logits,) = await service.logits(texts, classifiers)
        scores = logits if asked.raw_scores else classifiers[0].probabilities(logits)
        rows = [_sorted_scores(classifiers[0].label_names, row) for row in scores]
        return JSONResponse(rows[0] if single else rows)


def _answers(loaded: Loaded, logits: np.ndarray) -> list[dict[str, Any]]:
    probabilities = loaded.probabilities(logits)
    several = loaded.saved.multi_label
    names, decision = loaded.names_of(probabilities), loaded.saved.decision
    fitted = None
    if decision is not None and decision.thresholds:
        limits = thresholds(decision, loaded.label_names, temperature=loaded.temperature if several else 1.0)
        fitted = {n: limit for n, limit in zip(loaded.label_names, limits, strict=True) if n in decision.thresholds}
    return [
        {
            "labels": name if several else [name],
            "probabilities": dict(zip(loaded.label_names, map(float, row), strict=True)),
            "threshold": THRESHOLD if several and fitted is None else None,
            "thresholds": fitted,
        }
        for name, row in zip(names, probabilities, strict=True)
    ]


def _inputs(inputs: str | list[str] | list[list[str]]) -> tuple[list[str | tuple[str, str]], bool]:
    """The texts or pairs, and whether it is one alone."""
    if isinstance(inputs, str):
        return [inputs], True
    rows = [inputs] if inputs and all(isinstance(one, str) for one in inputs) else inputs
    texts: list[str | tuple[str, str]] = []
    for row in rows:
        if not isinstance(row, list) or len(row) not in (1, 2):
            raise HTTPException(422, "each of inputs is a list of one text, or of the two of a pair")
        texts.append(str(row[0]) if len(row) == 1 else (str(row[0]), str(row[1])))
    if not texts:
        raise HTTPException(422, "inputs is empty")
    return texts, rows is not inputs


def _sorted_scores(names: Sequence[str], row: np.ndarray) -> list[dict[str, Any]]:
    return [{"score": float(row[label]), "label": names[label]} for label in np.argsort(-row, kind="stable")]


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> Any:
        """The classifiers, their labels and how often they were right."""
        return {"models": service.collection.told()}

    @app.put("/v1/models/{name}", responses={409: {"description": "it cannot be loaded"}})
    async def add(name: str) -> Any:
        """Load a classifier from the models folder, in place of another of that name; answers go on meanwhile."""
        try:
            await service.everywhere(("add", name))
        except UserError as error:
            raise HTTPException(409, str(error)) from None
        return collections.told(service.named(name)[0])

    @app.delete("/v1/models/{name}", responses={404: {"description": "no such classifier"}})
    async def remove(name: str) -> Any:
        """Forget a classifier; requests that have reached it are still answered."""
        service.named(name)
        try:
            await service.everywhere(("remove", name))
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        return {"removed": name}


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthy() -> Any:
        """The process answers."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"description": "it drains, or has no classifier"}})
    async def ready() -> Any:
        """It takes texts."""
        if not service.ready or not service.collection.many.loaded:
            raise HTTPException(503, "not ready")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Any:
        """For Prometheus."""
        texts = await service.everywhere(("metrics",))
        return Response(texts[0] if service.link is None else summed(texts), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Any:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        content = _PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        return HTMLResponse(content, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})
