"""A GPU that is the CPU: what is done for one can be tested where there is none."""

from typing import Any

import pytest

from penstock.engine.gpu.device import Device
from penstock.engine.models.packaging import package as packaging
from penstock.engine.models.runtime import io_binding as bound
from penstock.engine.models.runtime import loader as served
from penstock.engine.models.runtime import session


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Device cuda:0 is there and runs on the CPU; a session on it captures nothing."""
    new_session, on_device = session._new_session, bound._on_device
    choose = session.choose_device

    def new(model: bytes, device: Device, options: Any, captures: bool = False) -> Any:
        if captures:
            raise RuntimeError("This session cannot use the graph capture feature")
        return new_session(model, Device(), options)

    def chosen(asked: str) -> Device:
        return Device(cuda=0) if asked in ("auto", "cuda:0") else choose(asked)

    monkeypatch.setattr(session, "_new_session", new)
    monkeypatch.setattr(session, "_cuda_provider", "CPUExecutionProvider")
    monkeypatch.setattr(bound, "_on_device", lambda shape, dtype, device: on_device(shape, dtype, Device()))
    for module in (served, packaging):
        monkeypatch.setattr(module, "choose_device", chosen)
