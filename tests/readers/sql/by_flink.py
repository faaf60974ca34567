"""Flink SQL reads JSON lines of predictions or explanations as a declared table, and prints one JSON line a message.

python by_flink.py FILE KIND
"""

import json
import sys
from typing import Any

from pyflink.table import EnvironmentSettings, TableEnvironment

source = "source ROW<`partition` INT, `offset` BIGINT>"
columns = {
    "prediction": f"{source}, label STRING, label_index INT, classes ARRAY<STRING>, outputs MAP<STRING, ARRAY<DOUBLE>>",
    "explanation": f"{source}, base_value DOUBLE, "
    "attributions ARRAY<ROW<feature STRING, `number` DOUBLE, text STRING, attribution DOUBLE>>",
}
queries = {
    "prediction": "SELECT source.`partition`, source.`offset`, label, label_index, classes, outputs FROM messages",
    # One row for each attribution: pyflink 2.3 cannot hand over nulls in rows in arrays.
    "explanation": "SELECT source.`partition`, source.`offset`, base_value, feature, `number`, text, attribution FROM messages "
    "CROSS JOIN UNNEST(attributions) AS parts (feature, `number`, text, attribution)",
}


def main(path: str, kind: str) -> None:
    tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    tables.execute_sql(
        f"CREATE TABLE messages ({columns[kind]}) WITH ('connector' = 'filesystem', 'path' = 'file://{path}', 'format' = 'json', "
        "'json.fail-on-missing-field' = 'false', 'json.ignore-parse-errors' = 'false')"
    )
    with tables.execute_sql(queries[kind]).collect() as rows:
        if kind == "prediction":
            for row in rows:
                print(json.dumps(list(row)))
            return
        found: dict[tuple[int, int], list[Any]] = {}
        for partition, offset, base, *attribution in rows:
            found.setdefault((partition, offset), [partition, offset, base, []])[3].append(attribution)
    for explanation in found.values():
        print(json.dumps(explanation))


main(*sys.argv[1:])
