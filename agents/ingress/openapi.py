"""How the HTTP API is described to programs: OpenAPI 3.1, from the classes in `schemas/http.py`."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from aiohttp import web
from openapi_pydantic import (
    Components,
    Header,
    Info,
    MediaType,
    OpenAPI,
    Operation,
    Parameter,
    PathItem,
    RequestBody,
    Response,
    Schema,
    SecurityScheme,
    Server,
)
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class
from pydantic import BaseModel

from schemas import http

PATH: Final = "/openapi.json"
_JSON: Final = "application/json"
_WRITE_KEY: Final[list[dict[str, list[str]]]] = [{"basic": []}, {"bearer": []}, {}]  # {}: the body may carry it
_WRITE_KEY_IN_HEADER: Final[list[dict[str, list[str]]]] = [{"basic": []}, {"bearer": []}]


def route() -> web.RouteDef:
    """The route of the description, which is made when it is first asked for: that takes some 50 ms."""
    written: Callable[[], bytes] = cache(
        lambda: describe(_installed_version()).model_dump_json(by_alias=True, exclude_none=True).encode()
    )

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=written(), content_type=_JSON)

    return web.get(PATH, answer)


def describe(of: str) -> OpenAPI:
    """The description of all that this package serves; of paths with several names, the long one."""
    paths = {
        "/v1/track": _tracking("track", http.Track, "Record something a user did."),
        "/v1/identify": _tracking("identify", http.Identify, "Set attributes of a user's profile."),
        "/v1/page": _tracking("page", http.Page, "Record that a user looked at a page."),
        "/v1/screen": _tracking("screen", http.Page, "Record that a user looked at a screen of an app."),
        "/v1/group": _tracking("group", http.Group, "Record that a user belongs to a group."),
        "/v1/alias": _tracking("alias", http.Alias, "Record that a user was known by another id."),
        "/v1/batch": _tracking("batch", http.Batch, "Do many of the above at once."),
        "/v1/cloudevents": PathItem(post=_cloudevents()),
        "/v1/journeys/{journey}/enter": PathItem(post=_entry()),
        "/v1/webhooks/{source}": PathItem(post=_webhook()),
        "/v1/projects/{key}/settings": PathItem(get=_settings()),
        "/healthz": PathItem(get=_get("healthz", "Does the process run?", {"200": _response(http.Alive)})),
        "/readyz": PathItem(
            get=_get(
                "readyz",
                "May the process be sent work?",
                {"200": _response(http.Readiness), "503": _response(http.Readiness, "Not yet, or no longer.")},
            )
        ),
        "/metrics": PathItem(get=_get("metrics", "Metrics for Prometheus.", {"200": Response(description="As text.")})),
        PATH: PathItem(get=_get("openapi", "This description.", {"200": Response(description="OpenAPI 3.1.")})),
    }
    document = OpenAPI(
        info=Info(
            title="Equeengage",
            version=of,
            description="Events about people come in here: Segment's tracking API, CloudEvents and signed webhooks;"
            " and entries into journeys.",
        ),
        servers=[Server(url="/")],
        paths=paths,
        components=Components(
            securitySchemes={
                "basic": SecurityScheme(type="http", scheme="basic", description="The write key as user name."),
                "bearer": SecurityScheme(type="http", scheme="bearer", description="The write key as token."),
            }
        ),
    )
    return construct_open_api_with_schema_class(document)


def _installed_version() -> str:
    try:
        return version("equeengage")
    except PackageNotFoundError:  # Run from a tree that was never installed.
        return "unknown"


def _tracking(name: str, body: type[BaseModel], summary: str) -> PathItem:
    return PathItem(
        post=Operation(
            operationId=name,
            summary=summary,
            tags=["tracking"],
            security=_WRITE_KEY,
            parameters=[_strict()],
            requestBody=RequestBody(required=True, content={_JSON: _content(body)}),
            responses=_responses(),
        )
    )


def _cloudevents() -> Operation:
    structured, batched = "application/cloudevents+json", "application/cloudevents-batch+json"
    several = Schema(type="array", items=PydanticSchema(schema_class=http.CloudEvent), maxItems=2500)
    return Operation(
        operationId="cloudevents",
        summary="Record CloudEvents 1.0.",
        description="Besides what is shown, the binary mode: attributes in `ce-*` headers, the data as the body.",
        tags=["cloudevents"],
        security=_WRITE_KEY_IN_HEADER,
        parameters=[_strict()],
        requestBody=RequestBody(
            required=True,
            content={
                structured: _content(http.CloudEvent),
                batched: MediaType(media_type_schema=several),
            },
        ),
        responses=_responses(),
    )


def _entry() -> Operation:
    responses = {
        **_responses(),
        "200": _response(http.EntryTaken),
        "400": _response(http.Failure, "Not JSON, too large, or a field is missing or wrong. Nothing was taken."),
        "404": _response(http.Failure, "No journey can be called that."),
    }
    return Operation(
        operationId="enter",
        summary="Let a user enter a journey.",
        tags=["journeys"],
        security=_WRITE_KEY_IN_HEADER,
        parameters=[_in_path("journey", "The journey's name.")],
        requestBody=RequestBody(required=True, content={_JSON: _content(http.Entry)}),
        responses=responses,
    )


def _webhook() -> Operation:
    return Operation(
        operationId="webhook",
        summary="Take a signed webhook of a system named in the settings.",
        tags=["webhooks"],
        parameters=[_in_path("source", "The name in the settings."), _strict()],
        requestBody=RequestBody(required=True, content={_JSON: MediaType()}),
        responses={**_responses(), "404": _response(http.Failure, "No such source.")},
    )


def _settings() -> Operation:
    return Operation(
        operationId="settings",
        summary="What Segment's SDKs for browsers and phones ask for first.",
        tags=["tracking"],
        parameters=[_in_path("key", "The write key.")],
        responses={"200": Response(description="Where to send."), "401": _response(http.Failure, "No such key.")},
    )


def _get(name: str, summary: str, responses: dict[str, Response]) -> Operation:
    return Operation(operationId=name, summary=summary, tags=["operations"], responses=responses)


def _responses() -> dict[str, Response]:
    again = {"Retry-After": Header(description="Seconds.", param_schema=Schema(type="integer"))}
    return {
        "200": _response(http.Success),
        "400": _response(http.Failure, "Not JSON, too large, or a wrong event and X-Strict-Mode: 1."),
        "401": _response(http.Failure, "No such write key, or a wrong signature."),
        "408": _response(http.Failure, "The body did not arrive. Send it again."),
        "429": _response(http.Failure, "Overloaded. Send it again later.", again),
        "503": _response(http.Failure, "The log cannot be reached. Send it again later.", again),
    }


def _response(body: type[BaseModel], description: str = "", headers: dict[str, Header] | None = None) -> Response:
    described = description or (body.__doc__ or "").strip()
    return Response(description=described, headers=headers, content={_JSON: _content(body)})


def _content(body: type[BaseModel]) -> MediaType:
    return MediaType(media_type_schema=PydanticSchema(schema_class=body))


def _strict() -> Parameter:
    described = "1: answer 400 where an event is wrong, instead of putting it aside."
    return _parameter("header", "X-Strict-Mode", described, Schema(type="string", enum=["0", "1"]))


def _in_path(name: str, description: str) -> Parameter:
    return _parameter("path", name, description, Schema(type="string"))


def _parameter(where: str, name: str, description: str, schema: Schema) -> Parameter:
    return Parameter.model_validate(  # as a dict, because `in` is no name in Python
        {"in": where, "name": name, "required": where == "path", "description": description, "schema": schema}
    )
