"""What a server of Spark Connect has to answer rightly before anything is computed on it: not every one of them is Spark.

What belongs here: what the engine relies on, and some server (Sail 0.7) was seen to answer wrongly without an error. What
does not: what such a server says itself that it cannot do, and Spark's own masters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import PySparkException

from warehouse.errors import SettingsError
from warehouse.tables import EVENTS

if TYPE_CHECKING:
    from warehouse.spark import SparkEngine

_DAY = date(2026, 3, 28)
_ANSWERED: set[str] = set()  # servers that gave this process the right answers

Answer = list[Any] | str  # values, or the error instead


class Probe(NamedTuple):
    """A feature as people call it, how to ask for it (the path is a file of one event on `_DAY`), and the right answer."""

    feature: str
    ask: Callable[["SparkEngine", str], Answer]
    right: Answer


def probe(engine: "SparkEngine", server: str) -> None:
    """Put to a server what is known, once in the life of this process: five small queries.

    Raises:
        SettingsError: it does not see the lake's files, or an answer was wrong.
    """
    if server in _ANSWERED:
        return
    with _event(engine) as file:
        engine.session.range(0, 6, 1, 3).createOrReplaceTempView("probe")
        answers = [(feature, _answer(ask, engine, file), right) for feature, ask, right in PROBES]
        engine.session.catalog.dropTempView("probe")
    wrong = [f"- {name}: {_shown(found)} instead of {_shown(right)}" for name, found, right in answers if found != right]
    if wrong:
        raise SettingsError(
            "\n".join([f"FAIRBOARD_SPARK_URL: the server at {server} does not answer as Spark does.", *wrong])
            + "\nNothing was computed. Connect to a server of Apache Spark itself, or set FAIRBOARD_ENGINE=duckdb."
        )
    _ANSWERED.add(server)


@contextmanager
def _event(engine: "SparkEngine") -> Iterator[str]:
    """A file of one event where the lake is, as Spark finds it, while the context lasts."""
    lake = engine.lake
    with TemporaryDirectory(prefix="probe.", dir=lake.scratch) as folder:
        # For whoever reads the lake: the server may be another user's.
        Path(folder).chmod(S_IMODE(lake.scratch.stat().st_mode))
        file = Path(folder) / f"event_date={_DAY}" / "probe.parquet"
        file.parent.mkdir()
        pq.write_table(pa.table({"event_id": ["probe"]}), file)
        if not engine.reads_bucket:
            yield str(file)
            return
        name = f"_tmp/{file.relative_to(lake.scratch)}"
        lake.storage.put({name: file})
        try:
            yield engine.url(name)
        finally:
            lake.storage.delete([name])


def _answer(ask: Callable[["SparkEngine", str], Answer], engine: "SparkEngine", file: str) -> Answer:
    try:
        return ask(engine, file)
    except (PySparkException, pa.ArrowException) as error:  # Arrow's where a stream of rows breaks off
        return f"the error {str(error).strip().splitlines()[0]!r}"


def _shown(answer: Answer) -> str:
    if isinstance(answer, str):
        return answer
    return ", ".join("NULL" if value is None else str(value) for value in answer) or "no rows"


def _days(engine: "SparkEngine", file: str) -> list[Any]:
    return engine.read_files(EVENTS, [file]).toArrow()["event_date"].to_pylist()


def _partition_column(engine: "SparkEngine", file: str) -> Answer:
    """Spark says that there is no such file, Sail gives no rows."""
    try:
        days = _days(engine, file)
    except PySparkException as error:
        if engine.reads_bucket:
            raise engine.no_bucket(error) from error
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        days = []
    if not days:
        raise SettingsError(
            f"FAIRBOARD_SPARK_URL: Spark does not see {file}, which this process has just written. Nothing was computed. "
            "Each of its machines has to read the lake's files under the path that this one has: mount the lake there, "
            "or set FAIRBOARD_ENGINE=duckdb."
        )
    return days


def _missing_file(engine: "SparkEngine", file: str) -> Answer:
    try:
        return _days(engine, file.replace("probe.parquet", "missing.parquet"))
    except PySparkException:
        return "an error"


def _column(sql: str) -> Callable[["SparkEngine", str], Answer]:
    """Ask for a column over `probe`: `id` from 0 to 5 in three partitions. So few rows come at once, without a stream."""
    return lambda engine, _: engine.rows(sql).toArrow()["answer"].to_pylist()


def _order(engine: "SparkEngine", _: str) -> Answer:
    """What the lake writes is streamed, a partition's rows after the other's: mixed, they would replace each other."""
    return engine.query("SELECT id FROM probe ORDER BY -id").read_all()["id"].to_pylist()


PROBES = (
    Probe("a partition's column of a file under basePath", _partition_column, [_DAY]),
    Probe("a file that is not there", _missing_file, "an error"),
    Probe(
        "lag(… IGNORE NULLS)",
        _column(
            "SELECT lag(CASE WHEN id % 3 = 0 THEN id END IGNORE NULLS) OVER (PARTITION BY id < 0 ORDER BY id) AS answer"
            " FROM probe ORDER BY id"
        ),
        [None, 0, 0, 0, 3, 3],
    ),
    Probe(
        "NULL in JSON",
        _column("SELECT CAST(to_json(struct_pack(id, nullif(id, 0) AS none)) AS VARCHAR) AS answer FROM probe WHERE id = 0"),
        ['{"id":0,"none":null}'],
    ),
    Probe("the order of streamed rows", _order, [5, 4, 3, 2, 1, 0]),
)
