"""The HTTP of the service: versioned routes, one shape of error, the page."""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Route

from symcere.bundle import open_bundle
from symcere.errors import BundleError, ConfigError, OutputError, SymcereError, UnknownIdError
from symcere.manifest import VERSION
from symcere.serving.feedback import Event, Feedback
from symcere.serving.guard import Guard, Limits
from symcere.serving.service import Service, Wish

_LOG = logging.getLogger("symcere.serving")
_WEB = Path(__file__).parent / "web"
_REASONED = 20  # items of a list that reasons are given of
_MOST, _BATCH, _TEXT, _ITEMS = 100, 256, 10_000, 1_000  # of k, users of a batch, characters, items of one request

Id = Annotated[str, Query(min_length=1, max_length=500)]
K = Annotated[int, Query(ge=1, le=_MOST, description="How many.")]
Dial = Annotated[
    float | None, Query(ge=-10, le=10, allow_inf_nan=False, description="Popularity weight; as chosen if left out.")
]
Diversity = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="0: best scores; 1: unlike items.")]
AnId = Annotated[str, Field(min_length=1, max_length=500)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    k: Annotated[int, Field(ge=1, le=_MOST)] = 10
    dial: Annotated[float | None, Field(ge=-10, le=10, allow_inf_nan=False)] = None
    category: Annotated[str, Field(max_length=500)] = ""
    exclude: Annotated[list[AnId], Field(max_length=_ITEMS)] = []
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class Newcomer(_Asked):
    """Somebody new: items they chose, what they write, or both."""

    items: Annotated[list[AnId], Field(max_length=_ITEMS)] = []
    text: Annotated[str, Field(max_length=_TEXT)] = ""
    why: bool = False


class Asking(BaseModel):
    """Somebody new, and an item that they want to know the reasons of."""

    model_config = ConfigDict(extra="forbid", strict=True)

    item_id: AnId
    items: Annotated[list[AnId], Field(max_length=_ITEMS)] = []
    text: Annotated[str, Field(max_length=_TEXT)] = ""


class Batch(_Asked):
    """Several users at once."""

    user_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=500)]], Field(min_length=1, max_length=_BATCH)
    ]


class Happened(BaseModel):
    """What a user did with an item."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: AnId
    item_id: AnId
    rating: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None
    title: Annotated[str, Field(max_length=_TEXT)] = ""
    text: Annotated[str, Field(max_length=_TEXT)] = ""


class Refusal(BaseModel):
    """Why a request was refused."""

    code: str
    message: str


class Refused(BaseModel):
    """The one shape of errors."""

    error: Refusal


_REFUSALS: dict[int | str, dict[str, Any]] = {
    int(status): {"model": Refused, "description": status.phrase}
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}


class _IdConvertor(PathConvertor):
    """An id may hold any character, slashes and line ends too."""

    regex = r"(?s:.+)"


register_url_convertor("id", _IdConvertor())


class Holder:
    """Holds the service that answers, and puts another in its place without a request being dropped.

    Args:
        folder: The bundle.
        feedback: Where feedback is kept; None to take none.
        approximate: Whether lists of large catalogues may miss items for the sake of speed.

    Raises:
        BundleError: If it cannot be opened.
    """

    def __init__(self, folder: Path, feedback: Feedback | None = None, *, approximate: bool = False) -> None:
        self.folder, self.feedback, self.approximate = folder, feedback, approximate
        self._reloading, self._lock = threading.Lock(), threading.Lock()
        self._kept: list[Event] | None = None  # since the reload that is under way began
        self.service = self._open(self.feedback or ())

    def _open(self, events: Iterable[Event]) -> Service:
        return Service(open_bundle(self.folder), events, approximate=self.approximate)

    def reload(self) -> bool:
        """Open what stands in the folder now; where it does not open, what was served goes on, and so does feedback.

        Returns:
            Whether it was opened.
        """
        with self._reloading:  # one at a time, or an older bundle might come last
            with self._lock:  # each event is read here, or among those kept meanwhile: never both
                self._kept, events = [], iter(self.feedback or ())
            try:
                service = self._open(events)
            except BundleError as error:
                self._kept = None
                _LOG.error("Not reloaded: %s", error)
                return False
            with self._lock:
                for event in self._kept:
                    if event.item_id in service.model.items:
                        service.take(event)
                self._kept, self.service = None, service  # requests in hand keep the one they began with
            return True

    def keep(self, event: Event) -> int:
        """Keep an event, and fold it in; it is kept before it counts.

        Args:
            event: The event.

        Returns:
            Its number.

        Raises:
            UnknownIdError: If there is no such item.
            ConfigError: If no feedback is taken.
        """
        if self.feedback is None:
            raise ConfigError("This service takes no feedback. Start it with --feedback FILE.")
        with self._lock:  # a reload takes over what is kept as a whole, or not yet
            self.service.model.items.index(event.item_id)
            number = self.feedback.add(event)
            if self._kept is not None:
                self._kept.append(event)
            self.service.take(event)
        return number


def create_app(holder: Holder, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """Make the application.

    Args:
        holder: Holds the service.
        limits: Limits() if left out.
        token: Bearer token that /v1 and /metrics want; None for anybody.

    Returns:
        An ASGI application.
    """
    registry = CollectorRegistry()
    app = FastAPI(title="SymCERE", version=VERSION, docs_url=None, redoc_url=None, openapi_url="/openapi.json",
                  responses=_REFUSALS)  # fmt: skip
    app.add_middleware(Guard, limits=limits or Limits(), token=token, registry=registry)
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:  # async, here and below: answered also where all threads are taken
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """What is served."""
        return {"status": "ready", **holder.service.about()}

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Counts and seconds, as Prometheus reads them."""
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/recommend")
    def recommend(
        user_id: Id,
        k: K = 10,
        dial: Dial = None,
        category: Annotated[str, Query(max_length=500)] = "",
        exclude: Annotated[Sequence[str], Query(max_length=_ITEMS)] = (),
        diversity: Diversity = 0.0,
        why: Annotated[bool, Query(description="Give the reasons of each; k is 20 at most then.")] = False,
    ) -> dict[str, Any]:
        """Recommend to a user. An unknown one gets what most chose, and `fallback` says so."""
        wish = Wish(min(k, _REASONED) if why else k, dial, category, exclude, diversity, why)
        return holder.service.for_user(user_id, wish)

    @app.post("/v1/recommend")
    def recommend_to(newcomer: Newcomer) -> dict[str, Any]:
        """Recommend to somebody new, by items they chose, by free text, or both. With reasons, k is 20 at most."""
        wish = _wish(newcomer)
        if newcomer.why:
            wish = replace(wish, k=min(wish.k, _REASONED), why=True)
        return holder.service.for_taste(newcomer.items, newcomer.text, wish)

    @app.post("/v1/batch")
    def batch(asked: Batch) -> dict[str, Any]:
        """Recommend to several users."""
        return {"results": holder.service.for_users(asked.user_ids, _wish(asked))}

    @app.post("/v1/feedback")
    def feedback(happened: Happened) -> dict[str, Any]:
        """Keep what a user did. The answer means that it survives a kill, and that the next list knows of it."""
        return {"number": holder.keep(Event(**happened.model_dump()))}

    @app.get("/v1/similar")
    def similar(item_id: Id, k: K = 10) -> dict[str, Any]:
        """Items nearest to an item."""
        return holder.service.similar(item_id, k)

    @app.get("/v1/explain")
    def explain(user_id: Id, item_id: Id) -> dict[str, Any]:
        """Why an item has its score for a user: parts that sum to it, words, sentences, neighbours."""
        return holder.service.why(user_id, item_id)

    @app.post("/v1/explain")
    def explain_to(asking: Asking) -> dict[str, Any]:
        """The same for somebody new, by items they chose, by free text, or both."""
        return holder.service.why_new(asking.items, asking.text, asking.item_id)

    @app.get("/v1/items/{item_id:id}")
    def item(item_id: str) -> dict[str, Any]:
        """Title, category and popularity of an item. A slash in its id may stand as it is, or as %2F."""
        return holder.service.item(item_id)

    @app.get("/v1/map")
    def item_map(k: Annotated[int, Query(ge=1, le=5_000, description="How many items.")] = 1_000) -> dict[str, Any]:
        """The most popular items on a plane, near where they are alike."""
        return holder.service.map(k)

    @app.get("/v1/search")
    def search(q: Annotated[str, Query(min_length=1, max_length=500, pattern=r"\S")], k: K = 10) -> dict[str, Any]:
        """Users and items by id or title, and items by what their reviews speak of."""
        return holder.service.search(q, k)

    files = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
    for path, name in files.items():  # named here: no path of a request touches the file system
        app.get(path, include_in_schema=False)(_file(_WEB / name))
    return app


def _wish(asked: _Asked) -> Wish:
    return Wish(asked.k, asked.dial, asked.category, asked.exclude, asked.diversity)


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def give() -> FileResponse:
        return FileResponse(path)

    return give


def _answer_errors(app: FastAPI) -> None:
    """Every error has one shape: {"error": {"code", "message"}}."""

    def answer(status: int, message: str) -> JSONResponse:
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
        return JSONResponse({"error": {"code": code, "message": message}}, status)

    @app.exception_handler(SymcereError)
    def ours(_: Request, error: SymcereError) -> JSONResponse:
        kinds = {UnknownIdError: 404, OutputError: 503}
        return answer(next((code for kind, code in kinds.items() if isinstance(error, kind)), 422), str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(422, f"{'.'.join(str(part) for part in first['loc'][1:]) or 'body'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        said = answer(error.status_code, str(error.detail))
        said.headers.update(error.headers or {})
        if error.status_code == 405:  # a path has a route a method; each knows its own alone
            here = [
                route for route in app.routes if isinstance(route, Route) and route.matches(request.scope)[0].value
            ]
            methods = {method for route in here for method in route.methods or ()}
            said.headers["Allow"] = ", ".join(sorted(methods))
        return said

    @app.exception_handler(Exception)
    def unexpected(_: Request, error: Exception) -> JSONResponse:
        _LOG.exception("A bug of ours", exc_info=error)
        return answer(500, "A bug of ours; the log of the service has it.")
