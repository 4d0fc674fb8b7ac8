"""What a client is told when its request is refused: RFC 9457 problem documents.

What does not belong here: deciding to refuse.
"""

from http import HTTPStatus

import msgspec


class Problem(Exception):
    """A refusal on its way to the client.

    `code` ends the document's `type`; `field` is the JSON path of the offending value, where there is one.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, field: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = headers

    def document(self, request_id: str) -> bytes:
        """The body, as `application/problem+json`."""
        return msgspec.json.encode(
            ProblemDocument(
                type=f"urn:fairboard:problem:{self.code}",
                title=HTTPStatus(self.status).phrase,
                status=self.status,
                detail=self.detail,
                instance=f"urn:fairboard:request:{request_id}",
                field=self.field if self.field is not None else msgspec.UNSET,
            )
        )


class ProblemDocument(msgspec.Struct, frozen=True):
    """RFC 9457, with the JSON path of the offending value as an extension."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    field: str | msgspec.UnsetType = msgspec.UNSET
