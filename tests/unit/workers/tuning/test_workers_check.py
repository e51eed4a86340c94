"""What `herd worker check` makes of llama.cpp's words about itself."""

from __future__ import annotations

import pytest

from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.tuning import check


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """A CPU of these flags."""
    real = check.Path

    def path(name):
        return tmp_path / "cpuinfo" if str(name) == "/proc/cpuinfo" else real(name)

    monkeypatch.setattr(check, "Path", path)
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: avx2 avx512f amx_int8\n")


@pytest.mark.parametrize(
    ("system", "used", "unused", "build"),
    [
        (
            "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1",
            ["SSE3", "AVX2", "AVX512"],
            ["AMX_INT8"],
            ["LLAMAFILE", "OPENMP", "REPACK"],
        ),
        (
            "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU : AVX2 = 1 | OPENMP = 1",
            ["AVX2"],
            ["AVX512", "AMX_INT8"],
            ["CUDA", "OPENMP"],
        ),
    ],
)
def test_features_of_the_cpu_and_of_the_build_are_told_apart(cpu, system, used, unused, build):
    assert check._features(system) == (used, unused, build)


def test_the_report_names_them(cpu):
    engine = Engine(StubModel(name="stub", slots=2))
    try:
        report = check.check(engine, 0.01)
    finally:
        engine.stop()
    assert report.cpu == "Some CPU"
    assert report.unused == ["AVX2", "AVX512", "AMX_INT8"]
    assert report.tokens_per_s == 2 * report.slot_tokens_per_s > 0
    assert any("plain" in line for line in report.lines())
