"""Spark, for what one machine's DuckDB cannot hold: the same models over the same files (docs/engines.md).

What belongs here: the session, the views, and what SQLGlot does not carry to Spark's dialect. What does not: the models, and
writing, which stays with the lake.
"""

import os
import re
import shutil
import socket
import sys
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from sqlglot import ErrorLevel, exp
from sqlglot.dialects.spark import Spark
from sqlglot.generators.spark import SparkGenerator

from warehouse.engine import DuckDBEngine, Engine, Parameter, with_values
from warehouse.errors import SettingsError
from warehouse.lake import LakeFile
from warehouse.settings import Settings
from warehouse.tables import Table

# PySpark 4.3 says on import that it is not yet at home with pandas 3. We hand it Arrow, never pandas.
warnings.filterwarnings("ignore", category=FutureWarning, message="PySpark does not yet fully support pandas")

try:
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]  # py4j has no types
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema

    from warehouse.spark_probes import probe
except ImportError as error:
    raise SettingsError(
        f"FAIRBOARD_ENGINE=spark needs PySpark ({error}); nothing was computed. "
        "Install it with `pip install 'fairboard[spark]'`, or set FAIRBOARD_ENGINE=duckdb."
    ) from error

LOGGING = Path(__file__).parent / "data" / "log4j2.properties"

# What makes Spark give DuckDB's answers: errors instead of NULLs, JSON with its nulls, days that no time zone moves.
_SEMANTICS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.jsonGenerator.ignoreNullFields": "false",
    "spark.sql.session.timeZone": "UTC",
}
CONNECT_PORT = 15002
_TRACE = "\n\tat "  # Java's, in a message
_GLOB = re.compile(r"([\\{}\[\]*?])")


class Spark4(Spark):
    """Spark SQL as of 4.3, and the constructs of DuckDB's that SQLGlot 30.30 drops or leaves as they are."""

    class Generator(SparkGenerator):
        """Raises `UnsupportedError` on what it cannot carry over, instead of giving other rows."""

        # Spark reads QUALIFY itself. SQLGlot's rewriting of it for older ones leaves a column behind in `SELECT *`.
        TRANSFORMS: ClassVar = {key: value for key, value in SparkGenerator.TRANSFORMS.items() if key is not exp.Select}

        def filter_sql(self, expression: exp.Filter) -> str:
            """`list(x ORDER BY …) FILTER (WHERE …)`; of anything else as ever."""
            if isinstance(expression.this, exp.ArrayAgg):
                return self._sorted_list(expression.this, f" FILTER({self.sql(expression, 'expression').strip()})")
            return super().filter_sql(expression)

        def arrayagg_sql(self, expression: exp.ArrayAgg) -> str:
            """`list(x ORDER BY …)`."""
            return self._sorted_list(expression, "")

        def _sorted_list(self, expression: exp.ArrayAgg, condition: str) -> str:
            """Collect structs of sort keys and value, sort them, take the values out. Without rows [], in DuckDB NULL."""
            order = expression.this
            if not isinstance(order, exp.Order) or any(key.args.get("desc") for key in order.expressions):
                self.unsupported("a list needs an ORDER BY, and one that ascends: order by -x")
                return ""
            keys = [self.sql(key.this) for key in order.expressions]
            fields = [f"{key} IS NULL, {key}" for key in keys]  # DuckDB puts NULLs last
            return f"SORT_ARRAY(COLLECT_LIST(STRUCT({', '.join(fields)}, {self.sql(order.this)} AS value)){condition}).value"

        def bracket_sql(self, expression: exp.Bracket) -> str:
            """`x[1:n]`, the first of a list."""
            match expression.expressions:
                case [exp.Slice(this=exp.Literal(this="1"), expression=exp.Literal() as end)]:
                    return self.func("SLICE", expression.this, exp.Literal.number(1), end)
            return super().bracket_sql(expression)


def spark_sql(tree: exp.Expr) -> str:
    """A statement of DuckDB's dialect as Spark reads it.

    Raises:
        sqlglot.errors.UnsupportedError: it is outside the subset that both share.
    """
    return tree.sql(dialect=Spark4, unsupported_level=ErrorLevel.RAISE)


class SparkEngine(Engine):
    """A session of this process's Spark. Its views are its own; the Java process stays until this one ends."""

    def __init__(self, settings: Settings) -> None:
        """Start Spark, or connect to it.

        Raises:
            SettingsError: Java is missing, nothing answers at FAIRBOARD_SPARK_URL, or what does is not Spark.
        """
        super().__init__(settings)
        self.session = open_session(settings)
        self._views: set[str] = set()
        if settings.spark_url.startswith("sc://"):
            probe(self, _server(settings.spark_url))

    @cached_property
    def duckdb(self) -> DuckDBEngine:
        """See `Engine`."""
        return DuckDBEngine(self.settings, lake=self.lake)

    def query(self, sql: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """See `Engine`. One of Spark's partitions after the other comes to this process."""
        return pa.RecordBatchReader.from_stream(self.rows(sql, **parameters))

    def rows(self, sql: str, **parameters: Parameter) -> DataFrame:
        """What `query` streams, not asked for yet."""
        return self.session.sql(spark_sql(with_values(sql, parameters)))

    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """See `Engine`."""
        # Over Spark Connect a table without rows has no schema of its own.
        self._bind(name, self.session.createDataFrame(rows, schema=from_arrow_schema(rows.schema)))

    def hold(self, name: str) -> None:
        """See `Engine`. It is computed, and kept on the executors, when it is first read; another of its name lets it go."""
        self.session.catalog.cacheTable(name)

    def close(self) -> None:
        """See `Engine`."""
        if "duckdb" in self.__dict__:
            self.duckdb.close()
        for view in self._views:
            self.session.catalog.dropTempView(view)
        self.lake.refresh()

    def bind_files(self, table: Table, files: Sequence[LakeFile], name: str = "") -> None:
        """See `Engine`. What a cluster reads from a bucket is not compared with its digest.

        Raises:
            SettingsError: the cluster cannot read the bucket.
        """
        name = name or table.name
        if not files:
            self.bind_rows(name, table.schema.empty_table())
            return
        if not self.reads_bucket:
            self._bind(name, self.read_files(table, [str(path) for path in self.lake.paths(files)]))
            return
        try:
            self._bind(name, self.read_files(table, [self.url(file.name) for file in files]))
        except (PySparkException, Py4JError) as error:
            raise self.no_bucket(error) from error

    @property
    def reads_bucket(self) -> bool:
        """Whether Spark reads the lake's bucket itself, not this machine's copies: its machines do not have them."""
        return bool(self.settings.lake_bucket) and not self.settings.spark_url.startswith("local")

    def url(self, name: str) -> str:
        """A file of the bucket, as Hadoop's connectors name it.

        Raises:
            SettingsError: it is not said which Azure account is meant.
        """
        scheme, _, place = self.lake.storage.shown(name).partition("://")
        if scheme != "az":
            return f"{'s3a' if scheme == 's3' else scheme}://{place}"
        container, _, rest = place.partition("/")
        if account := os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
            return f"abfss://{container}@{account}.dfs.core.windows.net/{rest}"
        raise SettingsError(
            "FAIRBOARD_LAKE_URL: Spark has to be told the account of az://, and AZURE_STORAGE_ACCOUNT_NAME is not set. Nothing "
            f"was computed. Set it, or write abfss://{container}@<account>.dfs.core.windows.net/…"
        )

    def no_bucket(self, error: Exception) -> SettingsError:
        """What to say where Spark cannot read the bucket."""
        reason = str(error).strip().partition(_TRACE)[0]
        return SettingsError(
            f"FAIRBOARD_SPARK_URL: Spark at {_server(self.settings.spark_url)} cannot read the lake in "
            f"{self.settings.lake_bucket}: {reason}\nNothing was computed. Its machines read the bucket themselves: give them "
            "Hadoop's connector for it and credentials of their own (docs/engines.md), or set FAIRBOARD_SPARK_URL=local[*] or "
            "FAIRBOARD_ENGINE=duckdb, which read this machine's copies."
        )

    def read_files(self, table: Table, files: Sequence[str]) -> DataFrame:
        """The rows of those files, paths or URLs in a partition's folder each, as the table's contract has them."""
        schema = ", ".join(f"`{c.name}` {_spark_type(c.sql_type)}" for c in table.columns)
        [root, *_] = files[0].rsplit("/", len(table.partition) + 1)
        reader = self.session.read.schema(schema).option("basePath", root)
        # Spark puts a partition's columns last; the contract has them first.
        return reader.parquet(*map(_literal, files)).select(table.schema.names)

    def _bind(self, name: str, rows: DataFrame) -> None:
        rows.createOrReplaceTempView(name)
        self._views.add(name)

    def _bind_sql(self, name: str, sql: str) -> None:
        self.session.sql(f"CREATE OR REPLACE TEMPORARY VIEW {name} AS {spark_sql(with_values(sql, {}))}")
        self._views.add(name)


def open_session(settings: Settings) -> SparkSession:
    """A new session, on a Java process that the first one starts, or over Spark Connect.

    Raises:
        SettingsError: Java is missing, or nothing answers at FAIRBOARD_SPARK_URL.
    """
    _find_spark(settings.spark_url)
    builder: Any = SparkSession.builder
    try:
        if settings.spark_url.startswith("sc://"):
            session: SparkSession = builder.remote(settings.spark_url).create()
        else:
            _find_java()
            # Executors run the Python that this is, where nothing else is said.
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            session = builder.config(map=_configuration(settings)).getOrCreate().newSession()
        for name, value in _SEMANTICS.items():
            session.conf.set(name, value)
    except (PySparkException, Py4JError) as error:
        reason = str(error).partition(_TRACE)[0]
        raise SettingsError(
            f"FAIRBOARD_SPARK_URL: Spark at {_server(settings.spark_url)} cannot be used: {reason}\nNothing was computed. "
            "Correct that, or set FAIRBOARD_ENGINE=duckdb."
        ) from error
    return session


def _configuration(settings: Settings) -> dict[str, str]:
    """What Spark is started with: quiet, small, and nothing outside DATA_DIR. spark-defaults.conf may add to it."""
    scratch = (settings.data_dir / "spark").absolute()
    configuration = {
        "spark.app.name": "fairboard",
        "spark.master": settings.spark_url,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.defaultJavaOptions": f"-Dlog4j2.configurationFile={LOGGING.as_uri()}",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    if settings.spark_url.startswith("local"):
        cores = str(os.cpu_count() or 1)
        configuration |= {"spark.sql.shuffle.partitions": cores}
    if re.match(r"local|spark://(127\.0\.0\.1|localhost)\b", settings.spark_url):
        configuration |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return configuration


def _find_spark(url: str) -> None:
    """Knock before Spark does: it tries for a minute, and Spark Connect for ten."""
    if url.startswith("local"):
        return
    refused = []
    for address in url.partition("://")[2].partition("/")[0].split(","):
        host, _, port = address.partition(":")
        try:
            socket.create_connection((host, int(port or CONNECT_PORT)), timeout=5).close()
        except (OSError, ValueError) as error:
            refused.append(f"{address}: {error}")
        else:
            return
    raise SettingsError(
        f"FAIRBOARD_SPARK_URL: no Spark answers at {_server(url)} ({'; '.join(refused)}). Nothing was computed. "
        "Start it or correct the URL, or set FAIRBOARD_ENGINE=duckdb."
    )


def _find_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not shutil.which("java", path=f"{home}/bin" if home else None):
        raise SettingsError(
            f"FAIRBOARD_ENGINE=spark needs Java 17 or later; there is none {f'in JAVA_HOME={home}' if home else 'on PATH'}. "
            "Nothing was computed. Install it (Debian: `apt-get install openjdk-17-jre-headless`, macOS: "
            "`brew install openjdk@17`), or set FAIRBOARD_ENGINE=duckdb."
        )


def _server(url: str) -> str:
    """A URL as it may be shown: that of Spark Connect may end in a token."""
    return url.partition("/;")[0]


def _spark_type(duckdb_type: str) -> str:
    return exp.DataType.build(duckdb_type, dialect="duckdb").sql(dialect=Spark4)


def _literal(path: str) -> str:
    """A path that Spark, which reads patterns, takes as it stands."""
    return _GLOB.sub(r"\\\1", path)
