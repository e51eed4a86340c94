"""Which builds of llama-cpp-python the set-up tries, what it calls them, and what it remembers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.install.builds import Build, candidates, cmake_args, wheel_key
from deploy.install.errors import InstallError, StepFailed
from deploy.install.machine import Compiler, Machine, compiler_of, cpu_flags
from deploy.install.shelf import Shelf, open_shelf
from deploy.install.trial import Verdict, judge
from deploy.install.wheel import Candidate, CompileFailed, compile_environment, settle

GCC_12 = Compiler("/usr/bin/c++", "c++ (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc")
GCC_14 = Compiler("/usr/bin/c++", "g++ (Ubuntu 14.2.0-4ubuntu2~24.04) 14.2.0", "gcc")
CLANG_19 = Compiler("/usr/bin/clang++", "Debian clang version 19.1.7 (3)", "clang")
PLAIN = frozenset({"avx2", "fma", "avx512f"})
AMX = PLAIN | {"amx_tile", "amx_int8", "amx_bf16"}


def machine(flags: frozenset[str] = PLAIN, compiler: Compiler = GCC_12) -> Machine:
    return Machine("x86_64", flags, compiler)


def names(builds: list[Build]) -> list[str]:
    return [build.name for build in builds]


def key(
    build: Build | None = None,
    on: Machine | None = None,
    version: str = "0.3.36",
    recipe: str = "recipe",
    **environ: str,
) -> str:
    return wheel_key(
        build or Build("native", ("-DA=1",)), on or machine(), version, recipe, environ
    )


# the machine


def test_cpu_flags_are_the_instruction_sets_and_not_the_kernels_notes():
    cpuinfo = (
        "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma ibrs md_clear amx_tile\n"
    )
    assert cpu_flags(cpuinfo + "\n" + cpuinfo) == {"avx2", "fma", "amx_tile"}


def test_cpu_flags_of_arm_are_all_kept():
    assert cpu_flags("Features\t: fp asimd sve\n") == {"fp", "asimd", "sve"}


def test_no_flags_no_matter():
    assert cpu_flags("") == frozenset()


@pytest.mark.parametrize(
    ("answer", "family", "major"),
    [
        ("g++ (Debian 12.2.0-14) 12.2.0\nCopyright (C) 2022 Free Software Foundation", "gcc", 12),
        ("c++ (GCC) 9.4.0\nCopyright (C) 2019 Free Software Foundation", "gcc", 9),
        ("Ubuntu clang version 18.1.3 (1ubuntu1)\nTarget: x86_64-pc-linux-gnu", "clang", 18),
        ("something else\n", "clang", 0),
    ],
)
def test_a_compiler_is_known_by_its_answer(answer: str, family: str, major: int):
    compiler = compiler_of("/usr/bin/c++", answer)
    assert (compiler.family, compiler.major) == (family, major)
    assert compiler.version == answer.partition("\n")[0]


# which builds


def test_without_amx_native_comes_first_and_generic_last():
    assert names(candidates(machine(PLAIN))) == ["native", "generic"]


def test_with_amx_and_an_old_gcc_the_plain_native_build_is_not_even_tried():
    expected = ["native-amx-cured", "native-no-amx", "generic"]
    assert names(candidates(machine(AMX, GCC_12))) == expected


@pytest.mark.parametrize("compiler", [GCC_14, CLANG_19])
def test_with_amx_and_another_compiler_the_trial_decides(compiler: Compiler):
    expected = ["native", "native-amx-cured", "native-no-amx", "generic"]
    assert names(candidates(machine(AMX, compiler))) == expected


def test_every_build_leaves_out_what_nobody_uses():
    for build in candidates(machine(AMX, GCC_14)):
        assert "-DLLAVA_BUILD=OFF" in build.cmake_args


def test_a_cure_keeps_the_users_compiler_flags():
    cured = candidates(machine(AMX), user_cxxflags="-O2 -g")[0]
    flags = next(arg for arg in cured.cmake_args if arg.startswith("-DCMAKE_CXX_FLAGS="))
    assert flags == "-DCMAKE_CXX_FLAGS=-O2 -g -fno-tree-dse -fno-dse -fno-tree-dce"


def test_the_users_cmake_args_have_the_last_word():
    args = cmake_args(Build("x", ("-DA=1 2", "-DB=3")), {"CMAKE_ARGS": "-DB=4"})
    assert args == "'-DA=1 2' -DB=3 -DB=4"


def test_the_compile_gets_its_tools_first_and_no_more_jobs_than_the_user_wants():
    environ = {"PATH": "/usr/bin", "CMAKE_BUILD_PARALLEL_LEVEL": "1", "CMAKE_ARGS": "-DB=4"}
    made = compile_environment(Build("x", ("-DA=1",)), Path("/bench/tools"), environ)
    assert made["PATH"] == "/bench/tools/bin:/usr/bin"
    assert made["CMAKE_BUILD_PARALLEL_LEVEL"] == "1"
    assert made["CMAKE_ARGS"].endswith(" -DA=1 -DB=4")
    environ.pop("CMAKE_BUILD_PARALLEL_LEVEL")
    made = compile_environment(Build("x", ()), Path("/bench/tools"), environ)
    assert int(made["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1


# the names of wheels


def test_a_key_is_stable_and_readable():
    shuffled = machine(frozenset(sorted(PLAIN, reverse=True)))
    assert key() == key(on=shuffled) == key(PATH="/anything")
    assert key().startswith("llama_cpp_python-0.3.36-native-gcc12-")
    assert key(on=replace(machine(), compiler=replace(GCC_12, command="/opt/bin/c++"))) == key()


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(Build("native", ("-DA=2",))),
        lambda: key(Build("generic", ("-DA=1",))),
        lambda: key(on=machine(PLAIN | {"avx512_vnni"})),
        lambda: key(on=machine(compiler=GCC_14)),
        lambda: key(on=machine(compiler=replace(GCC_12, version="c++ (Debian 12.2.0-15) 12.2.0"))),
        lambda: key(on=replace(machine(), architecture="aarch64")),
        lambda: key(version="0.3.37"),
        lambda: key(recipe="another"),
        lambda: key(CMAKE_ARGS="-DGGML_BLAS=ON"),
        lambda: key(CFLAGS="-O2"),
        lambda: key(CXXFLAGS="-O2"),
        lambda: key(LDFLAGS="-s"),
        lambda: key(CC="clang"),
    ],
)
def test_a_key_differs_with_whatever_decides_the_result(other: Callable[[], str]):
    assert other() != key()


# the shelf


def test_a_wheel_comes_to_the_shelf_whole_and_leaves_nothing_behind(tmp_path: Path):
    shelf = Shelf(tmp_path)
    assert shelf.wheel("a") is None
    (tmp_path / ".building-left").mkdir()
    with shelf.workbench() as bench:
        (bench / "x.whl").write_text("wheel")
        kept = shelf.keep("a", bench / "x.whl")
    assert shelf.wheel("a") == kept == tmp_path / "a" / "x.whl"
    assert list(tmp_path.glob(".building-*")) == []


def test_a_build_given_up_is_remembered_without_its_wheel(tmp_path: Path):
    shelf = Shelf(tmp_path)
    with shelf.workbench() as bench:
        (bench / "x.whl").write_text("wheel")
        shelf.keep("a", bench / "x.whl")
    shelf.give_up("a", "it died")
    assert shelf.failure("a") == "it died"
    assert shelf.failure("b") is None
    assert shelf.wheel("a") is None
    assert Shelf(tmp_path).failure("a") == "it died"


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path):
    (tmp_path / "file").write_text("")
    shelf = open_shelf(tmp_path / "file" / "wheels", instead=tmp_path / "build")
    assert shelf.folder == tmp_path / "build"
    assert open_shelf(tmp_path / "a", instead=tmp_path / "b").folder == tmp_path / "a"


def test_one_set_up_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class TriedToWait(Exception):
        pass

    def wait(seconds: float) -> None:
        raise TriedToWait

    monkeypatch.setattr("deploy.install.shelf.time.sleep", wait)
    shelf = Shelf(tmp_path)
    with shelf.lock():
        assert open_shelf(tmp_path, instead=tmp_path / "b").folder == tmp_path
        with pytest.raises(TriedToWait), Shelf(tmp_path).lock():
            pass
    with shelf.lock():
        pass


# settling on one


class Bench:
    """Builds and trials that go as told, and what was done."""

    def __init__(self, folder: Path, **ends: str):
        self.shelf = Shelf(folder)
        self.ends = ends
        self.done: list[str] = []
        lost = {"generic": "AVX-512 is not used."}
        self.candidates = [
            Candidate(Build(name, (), lost.get(name, "")), f"key-{name}") for name in ends
        ]

    def make(self, candidate: Candidate) -> Path:
        name = candidate.build.name
        self.done.append(f"make {name}")
        if self.ends[name] == "does not compile":
            raise CompileFailed(self.ends[name])
        if self.ends[name] == "no network":
            raise StepFailed("Compiling", 1, Path("log"), "no network")
        with self.shelf.workbench() as bench:
            (bench / f"{name}.whl").write_text("wheel")
            return self.shelf.keep(candidate.key, bench / f"{name}.whl")

    def trial(self, candidate: Candidate) -> Verdict:
        self.done.append(f"try {candidate.build.name}")
        return Verdict(self.ends[candidate.build.name] == "works", self.ends[candidate.build.name])

    def settle(self) -> str:
        self.done.clear()
        install: Callable[[Path], None] = lambda wheel: self.done.append(f"install {wheel.stem}")  # noqa: E731
        settled = settle(self.candidates, self.shelf, self.make, install, self.trial)
        return settled.build.name


def test_the_first_build_that_works_is_taken_and_kept(tmp_path: Path, capsys):
    bench = Bench(tmp_path, native="works", generic="works")
    assert bench.settle() == "native"
    assert "not used" not in capsys.readouterr().out
    assert bench.done == ["make native", "install native", "try native"]
    assert bench.settle() == "native"
    assert bench.done == ["install native", "try native"]


def test_a_build_that_crashes_is_given_up_for_good(tmp_path: Path, capsys):
    bench = Bench(tmp_path, native="SIGSEGV", cured="does not compile", generic="works")
    assert bench.settle() == "generic"
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "llama-cpp-python (generic) works: works. AVX-512 is not used."
    assert bench.done == [
        *("make native", "install native", "try native"),
        "make cured",
        *("make generic", "install generic", "try generic"),
    ]
    assert bench.settle() == "generic"
    assert bench.done == ["install generic", "try generic"]


def test_when_no_build_works_it_is_said_where_the_logs_are(tmp_path: Path):
    bench = Bench(tmp_path, native="SIGSEGV", generic="SIGILL")
    with pytest.raises(InstallError, match=str(tmp_path)):
        bench.settle()


def test_a_download_that_failed_gives_no_build_up(tmp_path: Path):
    bench = Bench(tmp_path, native="no network", generic="works")
    with pytest.raises(StepFailed):
        bench.settle()
    assert bench.shelf.failure("key-native") is None


# judging a trial


def test_a_child_that_decoded_passes():
    assert judge(0, "llama: chatter\ndecoded 656 tokens in 3.5 s\n") == Verdict(
        True, "decoded 656 tokens in 3.5 s"
    )


def test_a_child_that_died_or_miscounted_fails_the_build():
    assert judge(-11, "") == Verdict(False, "it died of SIGSEGV while it decoded")
    assert judge(3, "wrong: tokens [1] came") == Verdict(False, "wrong: tokens [1] came")


@pytest.mark.parametrize("status", [-9, 1])
def test_what_is_not_the_builds_fault_is_not_blamed_on_it(status: int):
    with pytest.raises(InstallError):
        judge(status, "Traceback ...\nModuleNotFoundError: No module named 'llama_cpp'")
