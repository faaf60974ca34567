"""What is said of a pipeline that was packaged, and may lose digits."""

from typing import Final

narrow_note: Final = (
    "numbers reach its boosters in float32, since an operator between takes no doubles: numbers past 16 million, and decimals beside a "
    "threshold, may be answered otherwise than by the original; give --rows that hold such numbers, or package its members alone"
)
untried_note: Final = (
    "numbers reach some of its operators in float32, and no rows were given: where those of the stream are large, or near each other, "
    "the answers lose digits; give --rows as the stream will hold them, and they are compared"
)
ties_note: Final = (
    "where several rows of training are equally near to a record, the original takes those that its search meets first and the bundle "
    "those that came first in training: such records may be answered otherwise; scale the columns, so that distances seldom tie"
)
