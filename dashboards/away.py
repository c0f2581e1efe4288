"""What a server answers while what it shows is away, such as a study whose folder was moved.

Open pages show the sentence, and what is done on them meanwhile is carried out once it is back (`unanswered.js`).
"""

from collections.abc import Callable

from flask import Flask, Response, request

OWN_FILES = ("/assets/", "/_dash-component-suites/")
"""The server's own files, which open pages may still load."""


def away(sentence: str) -> Response:
    """The answer: a sentence on what is away."""
    return Response(f"{sentence}\n", 503, mimetype="text/plain")


def add_away(server: Flask, fault: Callable[[], str]) -> None:
    """Answer so as long as `fault` returns a sentence, also if it does so only when another answer is ready."""

    def refuse() -> Response | None:
        if request.path.startswith(OWN_FILES):
            return None
        return away(sentence) if (sentence := fault()) else None

    def refuse_late(response: Response) -> Response:
        was_answered = response.status_code < 400
        return (refuse() if was_answered else None) or response

    server.before_request(refuse)
    server.after_request(refuse_late)
