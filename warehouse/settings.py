"""Every setting of Fairboard: read once from the environment (`FAIRBOARD_…`) and `.env`, validated loudly.

What belongs here: names, types, defaults and what follows from them. What does not: anything that opens a file or a socket.
"""

import re
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from warehouse.errors import SettingsError

DATA = Path(__file__).parent / "data"


_timezones = cache(available_timezones)  # 20 ms of reading folders


def _known_timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f"{name!r} is not an IANA time zone (for example UTC or Europe/Berlin)")
    return name


def _spark_url(url: str) -> str:
    if not re.fullmatch(r"local(\[[^\]]+\])?|(spark|sc)://.+", url):
        raise ValueError(
            f"{url!r} is no Spark that is known here: local[*], spark://host:7077 (a cluster) or sc://host:15002 (Connect)"
        )
    return url


# A bucket, and a prefix of plain names: what needs quoting is quoted by each client in its own way.
_BUCKET = re.compile(r"(s3|gs|az)://[\w.-]+(/[\w.=-]+)*/?|abfss://[\w-]+@[\w.-]+(/[\w.=-]+)*/?", re.ASCII)


def _lake_place(url: str | None) -> str | None:
    if url and "://" in url and not url.startswith("file://") and not _BUCKET.fullmatch(url):
        raise ValueError(
            f"{url!r} is no place that the lake can be: a folder (a path or file://…), s3://bucket/prefix, "
            "az://container/prefix, abfss://container@account.dfs.core.windows.net/prefix or gs://bucket/prefix"
        )
    return url


class Settings(BaseSettings):
    """The deployment. Field `x_y` is the environment variable `FAIRBOARD_X_Y`."""

    model_config = SettingsConfigDict(env_prefix="FAIRBOARD_", env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("data"), description="Folder of the lake, journal, database, Redis and Dagster.")
    lake_url: Annotated[str | None, AfterValidator(_lake_place)] = Field(
        None,
        description="Folder of the lake, or its bucket: s3://bucket/prefix, az://container/prefix, gs://bucket/prefix, with "
        "the cloud's own variables (AWS_…, AZURE_…, GOOGLE_…); default DATA_DIR/lake.",
    )
    snapshot_minutes: int = Field(
        15, ge=1, description="For how long, in minutes, superseded files of the lake stay: for readers, and for `--as-of`."
    )
    bucket_patience_s: float = Field(
        30, gt=0, le=600, description="For how long, in seconds, a bucket that does not answer or is overloaded is waited for."
    )
    cache_mb: int = Field(10_240, ge=1, description="Copies of a bucket's files in DATA_DIR/cache, in MiB at most.")
    redis_url: str | None = Field(None, description="A Redis to use instead of the embedded one.")
    database_url: str | None = Field(None, description="An SQLAlchemy URL to use instead of SQLite in DATA_DIR.")
    hmac_keys: str = Field(
        "", description="Signing keys, `id:secret` separated by commas; an id may stand there more than once."
    )
    seal_after_s: float = Field(5, gt=0, le=3600, description="Age, in seconds, at which journaled events become Parquet.")
    refresh_s: float = Field(5, gt=0, le=3600, description="Time, in seconds, between two refreshes of the boards in Redis.")
    # Above 32 MiB glibc gives a buffer back after every use: faulting it in again cost a seventh of the sealing.
    segment_mb: int = Field(24, ge=1, le=1024, description="Size, in MiB of unpacked bodies, at which they do so earlier.")
    rate_limit: int = Field(60_000, ge=0, description="Requests per key, address and window; 0 switches the limit off.")
    rate_window_s: int = Field(60, ge=1, le=3600, description="Length of the rate limit's sliding window, in seconds.")
    trusted_proxies: str = Field("", description="Addresses or networks, comma-separated, whose X-Forwarded-For counts.")
    idempotency: Literal["refuse", "replay"] = Field(
        "refuse", description="A repeated Idempotency-Key: `refuse` answers 409, `replay` as the first time."
    )
    redis_away: Literal["open", "closed"] = Field(
        "open", description="Without Redis: `open` accepts without limits and replay checks, `closed` refuses with 503."
    )
    identity: Literal["signed", "compatible"] | None = Field(
        None,
        description="`signed`: requests are stamped, and events named by their eventId or a signed webhook-id; `compatible`: "
        "the original system's clients are accepted, too. Default: `compatible` in the demo, `signed` in production.",
    )
    public_reads: bool | None = Field(
        None, description="Whether boards and progress are read without a key. Default: true in the demo, false in production."
    )
    cors_origins: str | None = Field(
        None,
        description="Origins, comma-separated, whose web pages may send and read, or `*`. Default: `*` in the demo, none in "
        "production.",
    )
    connections_per_address: int = Field(
        1024,
        ge=1,
        description="Open connections of one address to one worker; trusted proxies hold as many as there is room for.",
    )
    internal_pages: str | None = Field(
        None,
        description="Who sees /metrics and /openapi.json: `anyone`, or addresses and networks, comma-separated; everyone else "
        "needs a read key. Default: `anyone` in the demo, loopback in production.",
    )
    disk_floor_mb: int = Field(256, ge=0, description="Free disk, in MiB, below which nothing is accepted.")
    journal_limit_mb: int = Field(4096, ge=1, description="Unsealed journal, in MiB, above which nothing is accepted.")
    seasons: str = Field("month", description="`month`, `year`, or the path of a CSV with the columns id, start, end.")
    timezone: Annotated[str, AfterValidator(_known_timezone)] = Field(
        "UTC", description="The time zone whose midnight ends a day. Fixed once the lake holds events."
    )
    first_day: date = Field(date(2026, 1, 1), description="First daily partition that Dagster shows.")
    profile: Literal["demo", "production"] = Field("demo", description="`production` refuses what is only convenient.")
    levels_file: Path = Field(DATA / "levels.csv", description="The level curve: level, xp_required.")
    rewards_file: Path = Field(DATA / "rewards.csv", description="What a level pays: level, reward.")
    rules_file: Path = Field(DATA / "fairness_rules.csv", description="Fairness rules, their versions and thresholds.")
    alert_webhook: str | None = Field(None, description="URL that alerts are posted to as JSON; default: the log.")
    engine: Literal["duckdb", "spark"] = Field("duckdb", description="What computes the tables: `duckdb` or `spark`.")
    spark_url: Annotated[str, AfterValidator(_spark_url)] = Field(
        "local[*]", description="Spark's master: `local[*]`, `spark://host:7077`, or `sc://host:15002` for Spark Connect."
    )
    memory_limit: str | None = Field(None, description="DuckDB's memory limit (for example 4GB); it spills beyond that.")

    @cached_property
    def lake_bucket(self) -> str | None:
        """The lake's URL, where it is in a bucket."""
        return self.lake_url if self.lake_url and _BUCKET.fullmatch(self.lake_url) else None

    @property
    def lake_place(self) -> str:
        """Where the lake is, as people name it: the folder or the bucket's URL."""
        return self.lake_bucket or str(self.lake_dir)

    @cached_property
    def lake_dir(self) -> Path:
        """The lake's folder, absolute, where it is on this machine.

        Raises:
            SettingsError: it is in a bucket.
        """
        if self.lake_bucket:
            raise SettingsError(f"This works on a lake in a folder; this one is in {self.lake_bucket}. Nothing was done.")
        return Path(self.lake_url.removeprefix("file://") if self.lake_url else self.data_dir / "lake").absolute()

    @cached_property
    def zone(self) -> ZoneInfo:
        """The deployment's time zone."""
        return ZoneInfo(self.timezone)

    @cached_property
    def sqlalchemy_url(self) -> str:
        """The SQL database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'fairboard.sqlite'}"


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a variable has a value it cannot have; the message names every such variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"FAIRBOARD_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("These settings cannot be used; nothing was started.\n  " + "\n  ".join(wrong)) from None
