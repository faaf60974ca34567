"""Both languages say everything, with the same values."""

import ast
import json
import re
from pathlib import Path

import penstock
from penstock.engine.admin import gate
from penstock.engine.pages.sentences import static_folder
from penstock.engine.pages.serving import callers
from penstock.engine.pipeline.batcher import CloseReason
from penstock.engine.scaling.planner import Bound
from penstock.engine.telemetry.events import Event
from penstock.engine.telemetry.metrics import queues, stages
from penstock.engine.telemetry.worker_status import WorkerState
from penstock.schemas.reasons import Reason, Stage

english, chinese = (json.loads((static_folder / f"{each}.json").read_text()) for each in ("en", "zh"))
engine_folder = Path(penstock.__file__).parent / "engine"


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{([a-z_0-9]+)\}", text))


def test_the_languages_have_the_same_words_about_the_same_values() -> None:
    assert english.keys() == chinese.keys()
    for code in english:
        assert placeholders(english[code]) == placeholders(chinese[code]), code
        assert chinese[code].strip(), code
    same = {code for code in english if english[code] == chinese[code]}
    assert same <= {
        "method.lime",
        "method.deeplift_rescale",
        "reason.between",
        "told.as_it_is",
        "told.state",
        "tree.at_most",
    }


def test_every_sentence_of_the_api_has_words_and_is_given_their_values() -> None:
    """Each call of `sentence` with a literal code names the values of its words, unless it hands a mapping over."""
    found = 0
    for path in sorted((engine_folder / "pages").rglob("*.py")) + sorted(
        (engine_folder / "scaling").rglob("*.py")
    ):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "sentence" and call.args):
                continue
            code = call.args[0]
            if not isinstance(code, ast.Constant):
                continue
            found += 1
            assert code.value in english, code.value
            names = {each.arg for each in call.keywords}
            if None not in names:
                assert set(placeholders(english[code.value])) <= names, code.value
    assert found > 25


def test_every_word_that_a_page_asks_for_is_there() -> None:
    for path in static_folder.glob("*.js"):
        for code in re.findall(r'\bt\("([a-z_.0-9]+)"', path.read_text()):
            assert code in english, f"{path.name}: {code}"


def test_every_code_of_a_closed_set_has_words() -> None:
    sets = {
        "rejection": [str(each) for each in Reason],
        "stage": [*stages, *(str(each) for each in Stage)],
        "closed": [str(each) for each in CloseReason],
        "kind": [str(each) for each in Event],
        "state": [str(each) for each in WorkerState],
        "queue": list(queues),
        "bound": list(Bound.__args__),  # type: ignore[attr-defined]
    }
    for name, codes in sets.items():
        for code in codes:
            assert f"{name}.{code}" in english, f"{name}.{code}"


def test_the_pages_and_the_admin_port_mean_the_same_machine() -> None:
    assert callers.loopback_names == gate.loopback_names
