"""Reading .skops files: which types may be built from them."""

import re
import struct
import zlib
from collections.abc import Sequence
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

from penstock.engine.models.packaging.sklearn.stored.intact import check_intact
from penstock.engine.models.packaging.trial import try_file
from penstock.schemas.distribution import how_to_install
from penstock.schemas.errors import ConfigError

_of_scikit_learn = re.compile(r"sklearn(\.[A-Za-z_][A-Za-z0-9_]*)+")
_not_data = (
    "sklearn.datasets.",
    "sklearn.experimental.",
    "sklearn.externals.",
    "sklearn.tests.",
    "sklearn.utils._testing.",
)
"""Parts of scikit-learn that fetch, write or import something, and that no fitted model holds."""
_besides = frozenset(
    {
        "builtins.object",  # what make_column_selector's default compares with
        "collections.OrderedDict",
        "collections.defaultdict",
        "functools.partial",  # of a function whose own type is looked at as well
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "numpy.dtype",
        "numpy.random.mtrand.RandomState",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
    }
)
_foreign_errors = (
    ValueError, TypeError, RuntimeError, AttributeError, LookupError, ImportError, AssertionError, BadZipFile, OSError,
    ArithmeticError, SyntaxError, TokenError, EOFError, MemoryError, zlib.error, struct.error,
)  # fmt: skip


def is_trusted(name: str) -> bool:
    """Whether a type may be built from a .skops file: scikit-learn's own, and a few that its models hold.

    skops itself keeps the types that it holds to be safe; this is about all others. Nothing is trusted for its beginning
    alone: a name is a path of plain words, and the parts of scikit-learn that fetch data or run code are left out.
    """
    if name in _besides:
        return True
    return (
        _of_scikit_learn.fullmatch(name) is not None
        and not name.startswith(_not_data)
        and ".tests." not in name
    )


def load_skops(data: bytes, *, trusted: Sequence[str] = ()) -> Any:
    """The estimator in a .skops file. Raises ConfigError when it holds a type that is not trusted.

    `trusted`: more types, by their full names, that somebody has looked at and vouches for.
    """
    try:
        import skops.io
    except ImportError as error:
        raise ConfigError(f"reading .skops files needs skops: {how_to_install('package')}") from error
    for name in trusted:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+", name):
            raise ConfigError(f"--trust {name}: give the full name of one type, as package.module.Type")
    try:
        found = sorted(skops.io.get_untrusted_types(data=data))
        strange = [name for name in found if not is_trusted(name) and name not in trusted]
        if strange:
            more = f" (and {len(strange) - 1} more: {', '.join(strange[1:6])})" if len(strange) > 1 else ""
            raise ConfigError(
                f"the .skops file holds {strange[0]}{more}, which is not a type that is trusted: where you know who made the "
                f"file and what the type does, give --trust {strange[0]}"
            )
        try_file("skops", data)  # what has been changed by hand may take its process down
        model = skops.io.loads(data, trusted=found)
        check_intact(model)
    except _foreign_errors as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        reason = re.sub(r" object at 0x[0-9a-f]+", "", reason)
        raise ConfigError(f"the .skops file cannot be read: {reason}") from error
    return model
