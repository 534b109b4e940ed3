"""Fetches values from an HTTP origin.

Settings: `url`, under which the keys are, and `ttl`, for how many seconds a value is
fresh (60 unless set).
"""

from typing import NamedTuple
from urllib.parse import quote, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import cachecluster_plugin_types as plugin
from wit_world.imports import config, outgoing_handler
from wit_world.imports import wasi_http_types as http
from wit_world.imports.streams import StreamError_Closed

# The contract counts time in nanoseconds.
SECOND = 1_000_000_000
TTL = 60 * SECOND
NOT_FOUND_TTL = 10 * SECOND

READ_MAX = 64 * 1024


class Getter(exports.Getter):
    def get(self, key: str, ctx: plugin.Context) -> plugin.Outcome:
        """Returns an outcome, or raises an error of the contract."""
        try:
            return self.answer(key, ctx)
        except Err as error:
            if isinstance(error.value, plugin.Error):
                raise
            # WASI refuses a URL or a header: any other error would be a trap.
            raise internal(f"the request cannot be made: {error.value or 'too long'}")

    def answer(self, key: str, ctx: plugin.Context) -> plugin.Outcome:
        ttl = plugin.Freshness(ttl=seconds("ttl", TTL), stale=None)
        response = request(segment(key), ctx)

        match response.status:
            case 200:
                return plugin.Outcome_Found(
                    plugin.Entry(
                        value=response.body,
                        freshness=ttl,
                        validator=response.headers.get("etag"),
                        content_type=response.headers.get("content-type"),
                        tags=[],
                        metadata=[],
                    )
                )
            case 304 if ctx.validator() is not None:
                return plugin.Outcome_NotModified(ttl)
            case 404 | 410:
                return plugin.Outcome_NotFound(plugin.Freshness(NOT_FOUND_TTL, stale=None))
            case 401 | 403:
                raise Err(plugin.Error_Denied(f"the origin answered {response.status}"))
            case status if status == 429 or status >= 500:
                raise unavailable(f"the origin answered {status}", response.headers.get("retry-after"))
            case status:
                raise internal(f"the origin answered {status}")


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def request(path: str, ctx: plugin.Context) -> Response:
    """Sends a GET and reads the whole answer, in the time that is left."""
    # A tenth is kept, so that the answer is out before the node gives up. The first byte
    # has to come within the sum of the first two timeouts.
    time = ctx.remaining() * 9 // 10
    options = http.RequestOptions()
    options.set_connect_timeout(time // 4)
    options.set_first_byte_timeout(time - time // 4)
    options.set_between_bytes_timeout(time)

    with outgoing_handler.handle(outgoing(path, ctx.validator()), options) as future:
        with future.subscribe() as answered:
            answered.block()
        match future.get():
            case Ok(Ok(response)):
                with response:
                    return Response(response.status(), headers(response), body(response))
            case Ok(Err(code)):
                raise failed(code)


def outgoing(path: str, validator: str | None) -> http.OutgoingRequest:
    url = urlsplit(setting("url"))
    fields = http.Fields()
    if validator is not None:
        fields.append("if-none-match", validator.encode())
    message = http.OutgoingRequest(fields)
    message.set_scheme(http.Scheme_Https() if url.scheme == "https" else http.Scheme_Http())
    message.set_authority(url.netloc)
    message.set_path_with_query(f"{url.path}/{path}")
    return message


def headers(response: http.IncomingResponse) -> dict[str, str]:
    with response.headers() as fields:
        return {name.lower(): value.decode("latin-1") for name, value in fields.entries()}


def body(response: http.IncomingResponse) -> bytes:
    parts = []
    with response.consume() as incoming, incoming.stream() as stream:
        while True:
            try:
                parts.append(stream.blocking_read(READ_MAX))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return b"".join(parts)
                with error.value.value as cause:
                    raise failed(http.http_error_code(cause))


def failed(code: http.ErrorCode | None) -> Err:
    """The node's reason for an exchange that failed, as an error of the contract."""
    match code:
        case (
            http.ErrorCode_ConnectionTimeout()
            | http.ErrorCode_ConnectionReadTimeout()
            | http.ErrorCode_DnsTimeout()
            | http.ErrorCode_HttpResponseTimeout()
        ):
            return Err(plugin.Error_TimedOut())
        case http.ErrorCode_HttpRequestDenied() | http.ErrorCode_DestinationIpProhibited():
            return Err(plugin.Error_Denied("the plugin may not reach the origin: see its `network`"))
        case _:
            return unavailable(f"cannot reach the origin: {code or 'it hung up'}")


def segment(key: str) -> str:
    """The key as one segment of a path."""
    # Servers take dots for an order to leave the folder, encoded or not.
    if key in ("", ".", ".."):
        raise Err(plugin.Error_InvalidKey("the key can be no segment of a path"))
    return quote(key, safe="")


def setting(name: str) -> str:
    text = config.get(name)
    if not text:
        raise internal(f"the setting `{name}` is missing")
    return text


def seconds(name: str, default: int) -> int:
    text = config.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise internal(f"the setting `{name}` is not a whole number")
    return int(text) * SECOND


def unavailable(message: str, retry_after: str | None = None) -> Err:
    known = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
    wait = min(int(retry_after), 10**9) * SECOND if known else None
    return Err(plugin.Error_Unavailable(plugin.Unavailable(message, wait)))


def internal(message: str) -> Err:
    return Err(plugin.Error_Internal(message))
