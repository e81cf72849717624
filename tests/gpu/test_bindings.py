"""What the code uses of TensorRT is in the real bindings of 10.12, 11.4 and TensorRT for RTX, and so are the fakes."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from spai_export.tensorrt.platforms import CAPABILITIES, FP8_CAPABILITIES
from tests.support.bindings import releases
from tests.support.bindings.api import MODULE, Api, Arguments, Use
from tests.support.bindings.inference import Inference
from tests.support.bindings.program import Program
from tests.support.bindings.releases import RELEASES, RTX, api_of, available, environment, run

ROOT = Path(__file__).parents[2]
MODULES = (*RELEASES, RTX)
USES_TENSORRT = re.compile(r"^\s*import tensorrt|\b_?trt\.\w", re.MULTILINE)

Apis = Callable[[str], Api]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the libraries are made."""
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(scope="session")
def apis(folder: Path) -> Apis:
    found: dict[str, Api] = {}

    def api(name: str) -> Api:
        if available(name) not in found:
            found[name] = api_of(name, folder)
        return found[name]

    return api


def inferred(apis: Apis, sources: dict[str, str]) -> Inference:
    return Inference(Program(sources), [apis(name) for name in MODULES])


@pytest.fixture(scope="session")
def ours(apis: Apis) -> Inference:
    """Of all code that may meet TensorRT's objects."""
    paths = [
        path for package in ("spai_runtime", "spai_export", "spai_train") for path in ROOT.glob(f"{package}/**/*.py")
    ]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}
    near = ("spai_runtime/engines/", "spai_export/tensorrt/")
    return inferred(
        apis, {name: text for name, text in texts.items() if name.startswith(near) or USES_TENSORRT.search(text)}
    )


def misfits(uses: set[Use], api: Api, *, rtx: bool) -> list[str]:
    """:param rtx: whether code for TensorRT for RTX alone is held against it too"""
    return sorted(misfit for use in uses if (rtx or not use.rtx) and (misfit := api.misfit(use)))


# ---- our code


@pytest.mark.parametrize("name", MODULES)
def test_what_the_code_uses_is_there(ours: Inference, apis: Apis, name: str) -> None:
    assert len(ours.uses) > 100
    assert misfits(ours.uses, apis(name), rtx=name == RTX) == []


def test_no_object_of_tensorrt_goes_where_the_check_does_not_follow(ours: Inference) -> None:
    names = "getattr(self.trt.ComputeCapability, "  # see the next test
    assert [one for one in ours.lost if not one.partition(": ")[2].startswith(names)] == []
    assert {one for one in ours.untyped() if not one.endswith("(stream)")} == set()  # CuPy's


def test_every_capability_that_plans_are_built_for_has_a_name(apis: Apis) -> None:
    names = {f"SM{capability.replace('.', '')}" for capability in {*CAPABILITIES, *FP8_CAPABILITIES}}
    assert names <= apis(RTX).constants("ComputeCapability").keys()


def test_every_name_that_only_tensorrt_has_is_among_the_uses(ours: Inference, apis: Apis) -> None:
    """Found by its spelling in the text, whatever it is an attribute of."""
    classes = [one for name in MODULES for one in apis(name).classes.values()]
    known = {
        name for one in classes for kind in ("methods", "properties") for name in one[kind] if "_" in name.strip("_")
    }
    files = {use.place.rpartition(":")[0] for use in ours.uses}
    texts = "\n".join((ROOT / file).read_text() for file in files)
    written = known.intersection(re.findall(r"\.([a-z]\w*)", texts))
    assert len(written) > 25
    assert written == written & {use.name for use in ours.uses}


# ---- the check itself


@pytest.mark.skipif(sys.platform != "linux", reason="the bindings are for Linux")
def test_bindings_that_are_missing_fail_in_ci_and_are_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(releases, "FOLDER", tmp_path)
    monkeypatch.setattr(releases, "machine", lambda: "x86_64")
    said = f"the bindings of TensorRT 11.4 are not in {tmp_path / '11.4'}: run `make bindings`"
    for name, raised in (("", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("CI", name)
        with pytest.raises(raised, match=re.escape(said)):
            available("11.4")


START = """
from tests import anything

class Log(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, msg): severity.name

def start(trt):
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    engine = trt.Runtime(log).deserialize_cuda_engine(b"")
"""

WRONG = {
    "trt.Bilder(log)": "Bilder: no such name",
    "trt.BuilderFlag.TF23": "BuilderFlag.TF23: no such name",
    "trt.ILogger.Severity.FATAL": "ILogger.Severity.FATAL: no such name",
    "builder.create_config()": "Builder.create_config: no such name",
    "builder.create_network(flag=1)": "Builder.create_network: takes no flag",
    "builder.create_network(1, 2)": "Builder.create_network: takes 1 arguments, not 2",
    "builder.build_serialized_network(network)": "Builder.build_serialized_network: lacks config",
    "builder.build_serialized_network(config, network)": "wants INetworkDefinition, not IBuilderConfig",
    "config.set_flag(trt.MemoryPoolType.WORKSPACE)": "IBuilderConfig.set_flag: wants BuilderFlag, not MemoryPoolType",
    "config.optimization_level = 3": "IBuilderConfig.optimization_level: no such name",
    "engine.num_io_tensors = 3": "ICudaEngine.num_io_tensors: cannot be set",
    "trt.OnnxParser(network)": "OnnxParser.__init__: lacks logger",
    "trt.OnnxParser(network, b'')": None,
    "trt.ICudaEngine()": "ICudaEngine.__init__: cannot be called",
    "engine.create_execution_context(trt.BuilderFlag.TF32)": "wants ExecutionContextAllocationStrategy, not ",
    "engine.create_execution_context(trt.ExecutionContextAllocationStrategy.STATIC)": None,
    "engine.create_execution_context().set_shape('x', ())": "IExecutionContext.set_shape: no such name",
    "engine.get_tensor_profile_shape('x', 0)[1].sizes": "Dims.sizes: no such name",
    "[shape.sizes for shape in engine.get_tensor_profile_shape('x', 0)]": "Dims.sizes: no such name",
    "least, *_ = engine.get_tensor_profile_shape('x', 0); least.sizes": "Dims.sizes: no such name",
    "getattr(engine, 'num_bindings')": "ICudaEngine.num_bindings: no such name",
    "getattr(trt, 'BuilderFlag').FP32": "BuilderFlag.FP32: no such name",
}

# An engine on its way through code of ours, to a name that it does not have.
WAYS = {
    "a function": "def f(x): x.wrong\n\ndef g(trt): f(trt.Runtime(None).deserialize_cuda_engine(b''))",
    "what a function returns": "def f(trt): return trt.Runtime(None)\n\ndef g(): f(trt).wrong",
    "an attribute": "class A:\n  def __init__(self, x): self.x = x\n  def f(self): self.x.wrong\nA(trt.Runtime(None))",
    "a dataclass": "@dataclass\nclass A:\n  x: Any\n  def f(self): self.x.wrong\nA(x=trt.Runtime(None))",
    "another class": "class A:\n  def __init__(self): self.x = trt.Runtime(None)\n\ndef f(a: 'A | None'): a.x.wrong",
    "a property": "class A:\n  @property\n  def x(self): return trt.Runtime(None)\n\nA().x.wrong",
    "a call in parts": "def f(x, y): y.wrong\n\ndef g(h): h(trt.Runtime(None))\ng(partial(f, 1))",
    "a function that is handed on": "class A:\n  def f(self, x): x.wrong\n\ndef g(h): h(trt.Runtime(None))\ng(A().f)",
    "an override": "class A:\n  def f(self, x): ...\n  def g(self): self.f(trt.Runtime(None))\n\n"
    "class B(A):\n  def f(self, x):\n    super().f(x)\n    x.wrong",
    "a list": "def f(trt):\n  all = []\n  all.append(trt.Runtime(None))\n  for one in all: one.wrong",
    "a dictionary": "def f(d: dict):\n  d[1] = 2, trt.Runtime(None)\n  d.get(1)[1].wrong",
    "a choice": "def f(x): (trt.Runtime(None) if x else x).wrong",
    "a context manager": "@contextmanager\ndef f(): yield trt.Runtime(None)\nwith f() as x: x.wrong",
    "a function inside": "def f(trt):\n  x = trt.Runtime(None)\n  def g(): x.wrong",
    "an import": "def f():\n  import tensorrt_rtx as rtx\n  rtx.Runtime(None).wrong",
    "objects": "def f(all: Sequence['A']):\n  for one in all: one.x.wrong\n\nclass A:\n  x: Any\nA(trt.Runtime(None))",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG.items())
def test_a_mistake_is_found(apis: Apis, line: str, complaint: str | None) -> None:
    found = inferred(apis, {"code.py": f"{START}    {line}"})
    for name in MODULES:
        (*complaints,) = misfits(found.uses, apis(name), rtx=True)
        assert len(complaints) == (complaint is not None)
        assert not complaints or complaint in complaints[0], complaints
        assert not complaints or complaints[0].startswith("code.py:14: "), complaints


@pytest.mark.parametrize("way", WAYS)
def test_an_object_is_followed(apis: Apis, way: str) -> None:
    (complaint,) = misfits(inferred(apis, {"code.py": WAYS[way]}).uses, apis("11.4"), rtx=True)
    assert complaint.endswith(".wrong: no such name in 11.4.0.106")


def test_an_object_that_is_not_followed_is_told(apis: Apis) -> None:
    assert inferred(apis, {"code.py": f"{START}    anything(engine)"}).lost == {"code.py:14: anything(engine)"}
    assert inferred(apis, {"code.py": f"{START}    anything.of(engine)"}).lost == {"code.py:14: anything.of(engine)"}
    assert inferred(apis, {"code.py": f"{START}    getattr(engine, log)"}).lost == {"code.py:14: getattr(engine, log)"}
    assert inferred(apis, {"code.py": f"{START}\ndef f(profile: Any): profile.wrong"}).untyped() == {"f(profile)"}


def test_what_11_dropped_and_what_only_rtx_has(apis: Apis) -> None:
    flag = inferred(apis, {"code.py": f"{START}    config.set_flag(trt.BuilderFlag.FP16)"}).uses
    assert misfits(flag, apis("10.12"), rtx=True) == []
    assert misfits(flag, apis("11.4"), rtx=True) == ["code.py:14: BuilderFlag.FP16: no such name in 11.4.0.106"]
    line = "engine.create_runtime_config().create_runtime_cache()"
    for name in RELEASES:
        anywhere, marked = (
            inferred(apis, {"code.py": text}).uses
            for text in (f"{START}    {line}", START.replace("def start", "def start_rtx") + f"    {line}")
        )
        assert "create_runtime_cache: no such name" in misfits(anywhere, apis(name), rtx=False)[-1]
        assert misfits(marked, apis(name), rtx=False) == []
        assert misfits(marked, apis(RTX), rtx=True) == []


def test_what_is_called_by_code_for_rtx_alone_is_for_rtx_alone(apis: Apis) -> None:
    called = "\ndef f(trt): trt.EngineValidity.VALID\n\nclass Rtx:\n  def g(self, trt): f(trt)\n"
    for text, count in ((called, 0), (f"{called}\ndef h(trt): f(trt)", 2)):
        assert len(misfits(inferred(apis, {"code.py": text}).uses, apis("11.4"), rtx=False)) == count


def test_a_logger_that_takes_other_arguments(apis: Apis) -> None:
    found = inferred(apis, {"code.py": START.replace("severity, msg", "msg")})
    assert any("ILogger.log: lacks msg" in one for one in misfits(found.uses, apis("11.4"), rtx=True))


@pytest.mark.parametrize("name", ["set_input_shape", "parse_from_file", "USER_MANAGED", "infer_shapes", "OnnxParser"])
def test_a_misspelling_in_our_own_code_is_found(ours: Inference, apis: Apis, name: str) -> None:
    files = {use.place.rpartition(":")[0] for use in ours.uses}
    texts = {file: (ROOT / file).read_text() for file in files}
    found = inferred(apis, {file: re.sub(rf"\b{name}\b", f"{name}s", text) for file, text in texts.items()})
    assert misfits(ours.uses, apis("11.4"), rtx=False) == []
    assert all(f"{name}s: no such name" in one for one in misfits(found.uses, apis("11.4"), rtx=False))
    assert misfits(found.uses, apis("11.4"), rtx=False)


# ---- the fakes


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    available(RTX)  # which the fake takes its types from
    from tests.gpu.fakes import fake_cupy, fake_tensorrt  # noqa: PLC0415

    fake_tensorrt.install(monkeypatch, fake_cupy.install(monkeypatch))
    return sys.modules["tensorrt"]


def uses_of(owner: str, kind: type) -> Iterator[Use]:
    """The public names of a fake, and calls of its methods with all arguments, and with those alone that they need."""
    written = [vars(one) for one in kind.__mro__ if one.__module__.startswith("tests.")]
    for name, value in {key: value for own in written for key, value in own.items() if not key.startswith("_")}.items():
        yield Use("fake", owner, name)
        if inspect.isfunction(value):
            _, *parameters = inspect.signature(value).parameters.values()
            for chosen in (parameters, [one for one in parameters if one.default is one.empty]):
                yield Use("fake", owner, name, "call", arguments=Arguments(0, frozenset(one.name for one in chosen)))


@pytest.mark.parametrize("name", MODULES)
def test_the_fakes_have_no_more_than_the_real_ones(fake: ModuleType, apis: Apis, name: str) -> None:
    classes = {key: value for key, value in vars(fake).items() if isinstance(value, type)}
    uses = {Use("fake", MODULE, key) for key in classes}
    for key, value in classes.items():
        uses.update(uses_of(key, value))
    assert len(uses) > 40
    assert misfits(uses, apis(name), rtx=True) == []


def test_the_fake_of_tensorrt_for_rtx_has_no_more_than_it(apis: Apis) -> None:
    api = apis(RTX)
    from tests.gpu.fakes import fake_tensorrt_rtx  # noqa: PLC0415

    kinds = [one for one in vars(fake_tensorrt_rtx).values() if inspect.isclass(one) and "trt." in (one.__doc__ or "")]
    names = {re.findall(r"trt\.(\w+)", str(kind.__doc__))[0]: kind for kind in kinds if kind.__name__.startswith("Rtx")}
    names["IRuntimeCache"] = fake_tensorrt_rtx.IRuntimeCache
    assert names.keys() == {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache"}
    assert misfits({use for name, kind in names.items() for use in uses_of(name, kind)}, api, rtx=True) == []


# ---- what the real ones do without a library


@pytest.mark.parametrize("release", RELEASES)
def test_what_the_bindings_make_of_a_null_pointer(release: str, folder: Path) -> None:
    """The error that our code expects, and a logger that the real class takes."""
    code = """
import tensorrt_bindings as trt
from spai_runtime.engines.tensorrt_log import log_of
log = log_of(trt)
log.log(trt.ILogger.Severity.ERROR, "no  driver.")
for kind in trt.Builder, trt.Runtime:
    try:
        kind(log)
    except TypeError as error:
        print(error, log.last)
print(trt.DataType.UINT8 == 5, int(trt.DataType.UINT8))
"""
    said = run(["-c", code], environment(available(release), folder)).splitlines()
    assert said == 2 * ["pybind11::init(): factory function returned nullptr no driver"] + ["False 5"]
