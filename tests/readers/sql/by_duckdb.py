"""DuckDB reads JSON lines of predictions or explanations, types inferred, and prints one JSON line a message.

python by_duckdb.py FILE KIND
"""

import json
import sys

import duckdb

queries = {
    "prediction": """select source.partition, source."offset", label, label_index, classes, outputs from messages""",
    "explanation": """select source.partition, source."offset", base_value, attributions from messages""",
}


def main(path: str, kind: str) -> None:
    connection = duckdb.connect()
    connection.read_json(path, format="newline_delimited").create_view("messages")
    for row in connection.sql(queries[kind]).fetchall():
        *rest, last = row
        if kind == "explanation":
            last = [[each[name] for name in ("feature", "number", "text", "attribution")] for each in last]
        print(json.dumps([*rest, last]))


main(*sys.argv[1:])
