"""Golden rows: every model against a small case worked out by hand (tests/golden), through each engine that must give them."""

import csv
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from spark_fixtures import on_spark

from warehouse.engine import MODELS, ZONE_DAYS, Engine, model, open_engine
from warehouse.settings import Settings
from warehouse.spans import WINDOW_SPANS
from warehouse.tables import EVENTS, TABLES

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*.toml"))
UNORDERED = {  # what others read; the rest are written in the order they give
    "events", "event_scores", "day_levels", "xp_baselines", "long_days", "kill_times", "loot", "evidence",
}  # fmt: skip

SCHEMAS = {
    **{name: table.schema for name, table in TABLES.items()},
    "landed": EVENTS.schema,
    "window_spans": WINDOW_SPANS,
    "zone_days": ZONE_DAYS,
    "exclusions": pa.schema([("player_id", pa.string()), ("excluded_from", pa.date32()), ("excluded_until", pa.date32())]),
    "levels": pa.schema([(name, pa.int64()) for name in ("level", "xp_required", "xp_last", "xp_next")]),
    "fairness_rules": pa.schema(
        [("rule", pa.string()), ("version", pa.int64()), ("measure", pa.string()), ("review", pa.float64()),
         ("act", pa.float64()), ("min_n", pa.int64()), ("changed_on", pa.date32()), ("changed_by", pa.string()),
         ("reason", pa.string())]
    ),
    "day_levels": pa.schema([("event_date", pa.date32()), ("level_e6", pa.int64()), ("known", pa.bool_())]),
    "xp_baselines": pa.schema(  # what event_scores reads of them
        [("event_date", pa.date32()), ("player_id", pa.string()), ("level", pa.float64()),
         ("n", pa.int64()), ("mean", pa.float64()), ("sd", pa.float64()),
         ("log_n", pa.int64()), ("log_mean", pa.float64()), ("log_sd", pa.float64())]
    ),
    "event_scores": pa.schema(  # what evidence reads of them
        [("event_date", pa.date32()), ("player_id", pa.string()), ("rule", pa.string()), ("threshold", pa.float64()),
         ("event_id", pa.string()), ("z", pa.float64())]
    ),
    "flags": pa.schema(
        [("event_date", pa.date32()), ("player_id", pa.string()), ("rule", pa.string()), ("observed", pa.float64())]
    ),
}  # fmt: skip
READ: dict[str, Callable[[str], Any]] = {
    "string": str,
    "bool": lambda text: text == "true",
    "double": float,
    "date32[day]": date.fromisoformat,
    "int32": int,
    "int64": lambda text: int(datetime.fromisoformat(text).timestamp()) if "T" in text else int(text),
    "decimal128(38, 0)": int,
    "list<element: string>": str.split,
}
LEFT_OUT = {"string": "", "bool": False, "double": 0.0, "int64": 0, "decimal128(38, 0)": 0, "date32[day]": date(1970, 1, 1)}


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.xdist_group("spark"))])
def engine(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Engine]:
    """An engine without any data: it can `bind_rows`, `bind_model` and `run`."""
    with open_engine(on_spark(settings) if request.param == "spark" else settings) as engine:
        yield engine


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_rows(engine: Engine, path: Path) -> None:
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    given = {name: relation(SCHEMAS[name], text) for name, text in case["given"].items()}
    names, expected = rows(case["expected"]["rows"])
    answer = answers(engine, path.stem, given, case.get("parameters", {}))
    found = [[row[name] for name in names] for row in answer.to_pylist()]
    types = [str(answer.schema.field(name).type) for name in names]
    wanted = [[cell(text, kind) for text, kind in zip(row, types, strict=True)] for row in expected]
    if path.stem in UNORDERED:
        found, wanted = sorted(found, key=repr), sorted(wanted, key=repr)
    assert found == [[pytest.approx(value) if isinstance(value, float) else value for value in row] for row in wanted]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_of_nothing_comes_nothing(engine: Engine, path: Path) -> None:
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    empty = {name: SCHEMAS[name].empty_table() for name in case["given"]}
    assert answers(engine, path.stem, empty, case.get("parameters", {})).num_rows == 0


def test_every_model_has_golden_rows() -> None:
    read_by_others = {"player_spans"}  # in the cases of progression and leaderboards
    assert {path.stem for path in CASES} == {path.stem for path in MODELS.glob("*.sql")} - read_by_others


def answers(engine: Engine, name: str, given: dict[str, pa.Table], parameters: dict[str, date | int]) -> pa.Table:
    """What the model answers over the given relations, and over the models that it reads."""
    for relation_name, table in given.items():
        engine.bind_rows(relation_name, table)
    bind_nested(engine, name, set(given), parameters)
    used = {key: parameters[key] for key in re.findall(r"\$(\w+)", model(name).sql)}
    return engine.run(name, **used).read_all()


def bind_nested(engine: Engine, name: str, bound: set[str], parameters: dict[str, date | int]) -> None:
    for nested in sorted(model(name).upstream - bound - {name}):
        bind_nested(engine, nested, bound, parameters)
        engine.bind_model(nested, **parameters)


def relation(schema: pa.Schema, text: str) -> pa.Table:
    names, lines = rows(text)
    columns = []
    for field in schema:
        kind = str(field.type)
        if field.name in names:
            place = names.index(field.name)
            values = [cell(line[place], kind) for line in lines]
        else:
            values = [None if field.nullable else LEFT_OUT[kind]] * len(lines)
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def rows(text: str) -> tuple[list[str], list[list[str]]]:
    names, *lines = csv.reader(text.strip().splitlines(), skipinitialspace=True)
    return names, [[text.strip() for text in line] for line in lines]


def cell(text: str, kind: str) -> Any:
    if kind.startswith("list"):
        return text.split()
    if text == "''":
        return ""
    return READ[kind](text) if text else None
