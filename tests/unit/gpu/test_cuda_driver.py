"""NVIDIA's driver and compiler through ctypes, on a driver that is none."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.gpu.compiler import compiler_names
from penstock.engine.gpu.driver import Driver, Gpu
from penstock.schemas.errors import ConfigError, InvariantError
from tests.fake_cuda import FakeCuda


@pytest.fixture
def gpu(cuda: FakeCuda) -> Gpu:
    return Gpu(0, driver=Driver(cuda.libraries.driver))


def test_what_goes_to_the_gpu_comes_back_when_it_is_waited_for(gpu: Gpu) -> None:
    with gpu.current():
        sent, fetched = gpu.page_locked((3, 4)), gpu.page_locked((3, 4))
        address = gpu.allocate(sent.nbytes)
        sent[:] = np.arange(12).reshape(3, 4)
        fetched[:] = -1
        gpu.send(address, sent)
        gpu.fetch(fetched, address)
        assert (fetched == -1).all()
        gpu.finish()
        np.testing.assert_array_equal(fetched, sent)
        there = gpu.put(np.full((3, 4), 7, dtype=np.float32))
        gpu.fetch(fetched, there)
        gpu.finish()
        assert (fetched == 7).all()
    assert (gpu.name, gpu.model, gpu.capability) == ("cuda:0", "fake GPU", (9, 0))


def test_empty_arrays_have_an_address_too(gpu: Gpu) -> None:
    with gpu.current():
        assert gpu.put(np.zeros((0, 4), dtype=np.int32)).value != gpu.allocate(0).value


def test_a_thread_works_with_the_context_only_while_it_says_so(gpu: Gpu, cuda: FakeCuda) -> None:
    with gpu.current():
        array = gpu.page_locked((1,))
        address = gpu.allocate(4)
    with pytest.raises(ConfigError, match="cuMemAlloc_v2: CUDA error 201"):
        gpu.allocate(4)
    with pytest.raises(InvariantError, match="cuda:0 has failed: cuMemcpyHtoDAsync_v2: CUDA error 201"):
        gpu.send(address, array)
    with pytest.raises(ZeroDivisionError), gpu.current():
        raise ZeroDivisionError
    held = cuda.held
    with gpu.current():
        assert cuda.held == held + 1
    cuda.fail("cuCtxPushCurrent_v2", 700)
    with pytest.raises(InvariantError, match="an illegal memory access was encountered"), gpu.current():
        pass


def test_what_is_not_taken_back_is_said_and_the_rest_is_given_back_all_the_same(
    gpu: Gpu, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    with gpu.current():
        gpu.allocate(4)
        gpu.page_locked((1,))
    caplog.set_level(logging.WARNING)
    cuda.fail("cuMemFree_v2", 700)
    gpu.close()
    assert "does not take back what it gave: cuMemFree_v2: an illegal memory access" in caplog.text
    assert cuda.held == 1  # that memory


def test_a_driver_that_was_shut_down_before_takes_nothing_back_and_needs_no_words(
    gpu: Gpu, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.fail("cuCtxPushCurrent_v2", 4)
    cuda.fail("cuDevicePrimaryCtxRelease_v2", 4)
    gpu.close()
    assert caplog.text == ""


def test_the_newest_compiler_of_the_packages_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = [
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12", "nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc-builtins.so.13.5",
        "nvidia/cu9/lib/libnvrtc.so.9",
    ]  # fmt: skip
    for name in libraries:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    found = [str(tmp_path / libraries[place]) for place in (1, 0, 3)]
    assert compiler_names()[:3] == found
    assert "libnvrtc.so.13" in compiler_names()[3:]
