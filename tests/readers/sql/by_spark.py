"""Spark reads JSON lines of predictions or explanations as a declared table, and prints one JSON line a message.

python by_spark.py FILE KIND
"""

import json
import sys

from pyspark.sql import SparkSession

source = "source struct<partition: int, offset: bigint, timestamp: timestamp>"
schemas = {
    "prediction": f"{source}, label string, label_index int, classes array<string>, outputs map<string, array<double>>",
    "explanation": f"{source}, base_value double, "
    "attributions array<struct<feature: string, number: double, text: string, attribution: double>>",
}


def main(path: str, kind: str) -> None:
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    for row in spark.read.schema(schemas[kind]).option("mode", "FAILFAST").json(path).collect():
        where = [row.source.partition, row.source.offset]
        if kind == "prediction":
            found = [
                *where,
                row.label,
                row.label_index,
                list(row.classes),
                {k: list(v) for k, v in row.outputs.items()},
            ]
        else:
            found = [
                *where,
                row.base_value,
                [[a.feature, a.number, a.text, a.attribution] for a in row.attributions],
            ]
        assert row.source.timestamp.year >= 2020
        print(json.dumps(found))
    spark.stop()


main(*sys.argv[1:])
