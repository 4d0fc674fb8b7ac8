"""What an error of a bucket means, and what to do about it: one reading of it for every message and for `fairboard doctor`.

What belongs here: the clouds' error codes. What does not: what is done with a bucket (`bucket.py`).
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from warehouse.errors import StoreUnavailable


class Kind(StrEnum):
    """What is wrong."""

    CREDENTIALS_MISSING = "no credentials were found"
    CREDENTIALS_WRONG = "the credentials are not accepted"
    RIGHTS = "a right is missing"
    BUCKET = "there is no such bucket"
    REGION = "the bucket is in another region"
    CLOCK = "this machine's clock is wrong"
    CONDITIONS = "it has no conditional writes"
    INSECURE = "the endpoint is http, which must be allowed"
    UNREACHABLE = "it cannot be reached"
    BUSY = "it is overloaded, or fails"
    UNKNOWN = "it refused"


PASSING: Final = frozenset({Kind.UNREACHABLE, Kind.BUSY})  # may be over in a moment


class Trouble(NamedTuple):
    """What is wrong, what the bucket said, and what to do."""

    kind: Kind
    said: str
    todo: str


class Cloud(NamedTuple):
    """How a cloud's variables begin, which of them sign in and say where, and what its rights are called."""

    prefix: str
    credentials: str
    endpoint: str
    rights: str


class BucketUnavailable(StoreUnavailable):
    """The bucket cannot be reached, or refused the work; `no_file`: it is there, but not that file."""

    def __init__(self, url: str, error: BaseException) -> None:
        self.trouble = explain(url, error)
        self.no_file = isinstance(error, FileNotFoundError) and self.trouble.kind != Kind.BUCKET
        super().__init__(
            f"The lake {url} cannot be used: {self.trouble.kind} ({self.trouble.said}). What it holds is unchanged or whole, "
            f"events stay in the journal, and the same command may be run again. To do: {self.trouble.todo}."
        )


# What is found first counts: a missing bucket is a 404, a clock that is wrong a 403.
_SIGNS: Final = {
    Kind.CLOCK: r"RequestTimeTooSkewed|RequestExpired|Request date header too old|not yet valid|short-lived token",
    Kind.BUCKET: r"NoSuchBucket|ContainerNotFound|([Bb]ucket|container) does not exist|InvalidBucketName",
    Kind.REGION: r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|301 Moved",
    Kind.CREDENTIALS_MISSING: r"169\.254\.1[67]\d\.\d+|/latest/api/token|/metadata/identity|computeMetadata|"
    "Account must be specified|NoAuthenticationInformation",
    Kind.CREDENTIALS_WRONG: "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidAuthenticationInfo|ExpiredToken|InvalidToken|"
    "AuthenticationFailed|failed to authenticate|Invalid Access Key|TokenRequest|invalid_grant|service account file|401 Unauth",
    Kind.RIGHTS: "AccessDenied|Authorization(Failure|PermissionMismatch)|403 Forbidden",
    Kind.INSECURE: "BadScheme",
    Kind.BUSY: r"status code\s*:?\s*(429|5\d\d)|SlowDown|ServerBusy|ConditionalRequestConflict|OperationAborted",
    Kind.UNREACHABLE: r"error sending request|timed? ?out|TimedOut|[Cc]onnection|dns error|decoding response body|HttpError",
}

_CLOUDS: Final = {
    "s3": Cloud(
        "AWS",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where an IAM role is",
        "AWS_ENDPOINT_URL",
        "s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload",
    ),
    "az": Cloud(
        "AZURE",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run where a managed identity is",
        "AZURE_STORAGE_ENDPOINT",
        "the role Storage Blob Data Contributor",
    ),
    "gs": Cloud(
        "GOOGLE",
        "GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is",
        "GOOGLE_BASE_URL",
        "the role Storage Object User",
    ),
}
SCHEMES: Final = {"s3": "s3", "az": "az", "abfss": "az", "gs": "gs"}
CODES_SHOWN: Final = 3


def cloud_prefix(url: str) -> str:
    """How the environment variables of a URL's cloud begin: `AWS`, `AZURE` or `GOOGLE`."""
    return _cloud(url).prefix


def _cloud(url: str) -> Cloud:
    return _CLOUDS[SCHEMES[urlsplit(url).scheme]]


def explain(url: str, error: BaseException) -> Trouble:
    """What obstore or delta-rs met there."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).replace("↳", "")
    kind = next((kind for kind, signs in _SIGNS.items() if re.search(signs, text)), Kind.UNKNOWN)
    return Trouble(kind, _said(text), _todo(kind, url))


def _said(text: str) -> str:
    """The part of an error that a person wants: the status with the cloud's code and sentence, or else its first line."""
    status = re.search(r"status code\s*:?\s*(\d{3} [A-Z][A-Za-z ]*[a-z])", text)
    parts = [status[1]] if status else []
    parts += [found[1] for tag in ("Code", "Message") if (found := re.search(rf"<{tag}>([^<\n]+)", text))]
    if not parts:
        line = " ".join(text.partition("Debug source")[0].split())
        deepest = re.findall(r"Connection refused|TimedOut|timed out|dns error|ConnectionReset|BadScheme", text)
        parts = [line[:300], *dict.fromkeys(deepest)]
    return ", ".join(parts[:CODES_SHOWN]) or "it said nothing"


def _todo(kind: Kind, url: str) -> str:
    bucket, cloud = urlsplit(url).netloc, _cloud(url)
    return {
        Kind.CREDENTIALS_MISSING: f"set {cloud.credentials}",
        Kind.CREDENTIALS_WRONG: f"correct {cloud.credentials}; a token may have run out",
        Kind.RIGHTS: f"give this identity {cloud.rights} on {bucket}",
        Kind.BUCKET: f"make the bucket {bucket}, or correct FAIRBOARD_LAKE_URL",
        Kind.REGION: f"set AWS_REGION to the region of {bucket}",
        Kind.CLOCK: "set the clock (for example with chrony or systemd-timesyncd); clouds refuse what is minutes off",
        Kind.INSECURE: f"set {cloud.prefix}_ALLOW_HTTP=true if the line is trusted, or give an https endpoint",
        Kind.UNREACHABLE: f"see the network and {cloud.endpoint}; it is tried again by itself where something runs on",
        Kind.BUSY: "wait; it is tried again by itself where something runs on",
        Kind.UNKNOWN: "see what it said; `fairboard doctor` tries each right",
    }[kind]
