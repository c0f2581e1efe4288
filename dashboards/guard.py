"""Request checks and security headers that keep other sites away from the content of a server of ours."""

from flask import Flask, Response, request
from werkzeug.datastructures import Headers

from dashboards.address import Address, host_name

READING = frozenset({"GET", "HEAD"})


def add_guard(server: Flask, address: Address, script_hashes: list[str], inline_styles: bool = True) -> None:
    """Answer only the server's own pages; `script_hashes` are the quoted hashes of Dash's own inline scripts.

    Links from anywhere may open a page; all other requests must come from the same origin. Without `inline_styles`,
    styles come from files only.
    """
    headers = security_headers(address, script_hashes, inline_styles)

    def refuse() -> Response | None:
        sentence = refusal(address, request.method, request.headers)
        return Response(f"{sentence}\n", 403, mimetype="text/plain") if sentence else None

    def add_headers(response: Response) -> Response:
        response.headers.update(headers)
        return response

    server.before_request(refuse)
    server.after_request(add_headers)


def refusal(address: Address, method: str, headers: Headers) -> str | None:
    """Why a request is refused, in one sentence; None if it is allowed.

    Checks the Host header against the server's names, the Origin against the Host, and Sec-Fetch-Site if the browser
    sends it (W3C Fetch Metadata).
    """
    host = headers.get("Host")
    if not address.answers_to(host):
        name = host_name(host or "")
        if name is None:
            return "This server needs a Host header with a valid host name, as browsers send it."
        return (
            f"This server does not answer to the host '{name}': if that is its address, start it with "
            f"--allow-host {name}."
        )
    origin = headers.get("Origin")
    if origin is not None and not _is_own(address, origin, host or ""):
        return f"This server answers only its own pages, not those of {origin}."
    where = headers.get("Sec-Fetch-Site", "same-origin")
    followed_link = headers.get("Sec-Fetch-Mode") == "navigate" and method in READING
    if where not in ("same-origin", "none") and not followed_link:
        return "This server answers only its own pages."
    return None


def _is_own(address: Address, origin: str, host: str) -> bool:
    """Whether an Origin header is the server's own: the requested host or an allowed proxy name."""
    place = origin.lower().partition("://")[
        2
    ]  # an origin is a scheme, a host and a port, without path (RFC 6454)
    return place == host.lower() or host_name(place) in {name.lower() for name in address.names}


def security_headers(
    address: Address, script_hashes: list[str], inline_styles: bool = True
) -> dict[str, str]:
    """Headers of every response: load from this server only; be read and framed only by its own pages."""
    framed = address.frames
    policy = (
        "default-src 'self'",
        " ".join(("script-src 'self'", *script_hashes)),
        # Plotly, Mantine and AG Grid set styles from scripts.
        "style-src 'self' 'unsafe-inline'" if inline_styles else "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        f"frame-ancestors '{'self' if framed else 'none'}'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Frame-Options": "SAMEORIGIN" if framed else "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
