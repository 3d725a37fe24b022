"""Who may import whom: heavy libraries by importing modules in a fresh interpreter, rooms by reading the source."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import harness

HEAVY = frozenset(
    {"torch", "torchvision", "mlflow", "optuna", "pandas", "plotly", "scipy", "matplotlib", "click", "rich", "ray"}
)
FRAMES = frozenset({"pandas", "scipy"})

# Module -> the heavy libraries that importing it may bring in. A package stands for its modules; the longest name wins.
ALLOWED: dict[str, frozenset[str]] = {
    "harness": frozenset(),  # whatever is not named below: study, store.cells, execution, api, trainers, ...
    "harness.plan.power": frozenset({"scipy"}),
    "harness.plan.sensitivity": frozenset({"scipy"}),
    "harness.store.load": frozenset({"pandas"}),
    "harness.trainers.images.models": frozenset({"torch"}),
    "harness.trainers.images.data.batches": frozenset({"torch"}),
    "harness.trainers.images.augment": frozenset({"torch"}),
    "harness.trainers.images.arithmetic": frozenset({"torch"}),
    "harness.trainers.images.graph": frozenset({"torch"}),
    "harness.trainers.images.optimizers": frozenset({"torch"}),
    "harness.trainers.images.update": frozenset({"torch"}),
    "harness.trainers.images.kernels.winograd": frozenset({"torch"}),
    "harness.trainers.images.readback": frozenset({"torch"}),
    "harness.trainers.images.streams": frozenset({"torch"}),
    "harness.trainers.images.checkpoint": frozenset({"torch"}),
    "harness.trainers.images.train": frozenset({"torch"}),
    "harness.trainers.images.trained": frozenset({"torch"}),
    "harness.trainers.images.module_layers": frozenset({"torch"}),
    "harness.trainers.images.visualize": frozenset({"torch"}),
    "harness.stats": FRAMES,
    "harness.tracking": frozenset(),  # mlflow is imported on first use, after its environment is set
    "harness.search": FRAMES | {"optuna"},
    "harness.report": FRAMES,
    "harness.report.figures": FRAMES | {"plotly"},
    "harness.report.html": FRAMES | {"plotly"},
    "harness.report.pictures": FRAMES | {"matplotlib"},
    "harness.cli": frozenset({"click", "rich"}),
    "harness.__main__": frozenset({"click", "rich"}),
}


def modules() -> list[str]:
    root = Path(harness.__file__).parent
    paths = sorted(path for path in root.rglob("*.py") if "experiments" not in path.parts)
    names = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def allowed(module: str) -> frozenset[str]:
    parts = module.split(".")
    return next(ALLOWED[name] for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in ALLOWED)


def at_import(module: str) -> Iterator[str]:
    """What importing a module imports by its own lines: not in functions, nor for types alone."""
    bodies: list[list[ast.stmt]] = [source(module).body]
    for body in bodies:
        for node in body:
            if isinstance(node, ast.Import):
                yield from (it.name for it in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{it.name}" for it in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                bodies.append(node.orelse)
            elif not isinstance(node, ast.FunctionDef):
                bodies += [getattr(node, part) for part in ("body", "orelse", "finalbody") if hasattr(node, part)]
                bodies += [handler.body for handler in getattr(node, "handlers", ())]


def test_the_table_names_only_modules_that_exist():
    assert len(modules()) > 20
    assert set(ALLOWED) <= set(modules())


@pytest.mark.slow
@pytest.mark.parametrize("libraries", sorted(set(ALLOWED.values()), key=sorted), ids=lambda it: "-".join(sorted(it)))
def test_modules_import_only_what_the_table_allows(libraries):
    """All with the same allowance in one fresh interpreter: where one brings in more, all of them have."""
    # What glues frameworks, which need not be installed, imports whatever it likes.
    judged = [it for it in modules() if allowed(it) == libraries and not it.startswith("harness.integrations.")]
    code = "import sys; [__import__(it) for it in sys.argv[1:]]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *judged], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert set(judged) <= loaded
    assert loaded & HEAVY <= libraries


def test_there_is_no_import_circle():
    """So that each module can be the first that is imported."""
    names = set(modules())
    graph = {
        module: {name if name in names else name.rpartition(".")[0] for name in at_import(module)} & names - {module}
        for module in names
    }
    assert graph["harness.plan.plan"] > {"harness.plan.cell"}
    assert list(TopologicalSorter(graph).static_order())


# A room is a package, or a module that stands alone. What every room may import, and imports nothing but each other:
GROUND = frozenset(
    {
        *(
            "cuda",
            "errors",
            "files",
            "guard",
            "hardware",
            "hosts",
            "metrics",
            "names",
            "problems",
            "services",
            "texts",
            "trees",
        ),
        *("urls", "version"),
    }
)
CORE = frozenset({"study", "plan", "store", "execution", "trainers"})

# Room -> the rooms that it may import, beside itself and the ground floor; nobody imports upwards, not even for types.
ROOMS: dict[str, frozenset[str]] = {
    **dict.fromkeys(GROUND, frozenset()),
    "trainers": frozenset(),  # the protocol, the handle, the registry, and trainers of the user's own code
    "trainers.images": frozenset({"trainers"}),
    "integrations": frozenset({"trainers"}),  # glue between a run and frameworks that own the loop
    "study": frozenset({"trainers"}),
    "plan": frozenset({"study", "trainers"}),
    "store": frozenset({"plan", "study", "trainers"}),
    "execution": frozenset({"store", "plan", "trainers"}),
    "stats": frozenset({"store", "plan"}),
    "report": frozenset({"stats", "store", "plan"}),
    "tracking": frozenset({"store", "plan"}),
    "search": CORE | {"stats", "report", "tracking"},
    "claims": CORE | {"stats", "report"},
    "claims.report": CORE | {"stats", "claims", "trainers.images"},  # the report of 2022, which is about images
    "api": CORE | {"stats", "report", "tracking", "search", "claims"},
    "live": CORE | {"stats", "report", "api"},
    "cli": CORE | {"stats", "report", "tracking", "search", "claims", "claims.report", "api"},
    "__main__": frozenset({"cli"}),
    "": CORE | {"stats", "report", "api"},  # the package's public names
}

# (Module, what it imports of another room) -> why. Each line is a debt; a new one needs a reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli.conv", "trainers.images"): "a command about convolutions: arithmetic alone",
    ("cli.doctor", "trainers.images"): "looks at the cache of images",
    ("cli.summary", "trainers.images"): "a command about networks",
    ("cli.visualize", "trainers.images"): "a command about networks and images",
    ("report.tables", "study"): "the baseline's name",
    ("trainers.images.model_summary", "study"): "a study's variants as networks",
}

TORCH = frozenset({"torch", "torchvision"})
# Modules outside `trainers/images` that import torch in a function.
TORCH_EXCEPTIONS: dict[str, str] = {
    "cli.visualize": "the type of a network",
    "integrations.lightning": "a sampler, and torch's generator",
}

# What the core must not know: words of one trainer. Module -> the names and texts that it may have all the same.
WORDS = re.compile(r"accuracy|convnet|torch|image|\b(train|val|test)_|\bpoints", re.IGNORECASE)
KNOWN_WORDS: dict[str, str] = {
    "execution.provenance": r"torch|torchvision",  # names of libraries, whose versions are recorded
    "hardware": r"harness\.trainers\.images\.kernels\._winograd",  # found without importing it
    "metrics": r"points",  # differences of percents
    "plan.power": r"accuracy|an accuracy in .*| images\.",  # the sd that a test set lets expect
    "trainers.registry": r"images|harness\.trainers\.images\.trainer:ImageTrainer|trainer: expected images.*",
}


@cache
def source(module: str) -> ast.Module:
    path = Path(harness.__file__).parent.parent.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def short(module: str) -> str:
    return module.removeprefix("harness").removeprefix(".")


def room(module: str) -> str:
    """The longest name in the table that this module, named without `harness.`, stands under."""
    parts = module.split(".")
    return next((name for end in (2, 1) if (name := ".".join(parts[:end])) in ROOMS), parts[0] if parts[0] else "")


def imported(module: str) -> Iterator[str]:
    """Every module that this one imports anywhere: at the top, in functions, for types."""
    for node in ast.walk(source(module)):
        if isinstance(node, ast.Import):
            yield from (it.name for it in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports by a relative name"
            yield from (f"{node.module}.{it.name}" for it in node.names)


def rooms_imported(module: str) -> set[str]:
    ours = (short(it) for it in imported(module) if it.partition(".")[0] == "harness")
    return {room(it) for it in ours} - GROUND - {room(short(module))}


def words(module: str) -> set[str]:
    """Names and texts, without docstrings and comments."""
    tree = source(module)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and is_text(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.add(node.value)
        for field in ("id", "attr", "arg", "name", "module"):
            name = getattr(node, field, None)
            found |= {name} if isinstance(name, str) else set()
    return found


def is_text(node: ast.AST) -> bool:
    """Whether a body opens with a docstring."""
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)


def test_every_module_stands_in_a_room_of_the_table():
    assert {room(short(module)) for module in modules()} <= set(ROOMS)


def test_no_room_imports_upwards_or_sideways():
    excepted = {name: {imported for importer, imported in EXCEPTIONS if importer == name} for name, _ in EXCEPTIONS}
    wrong = {
        name: more
        for name, module in ((short(module), module) for module in modules())
        if (more := rooms_imported(module) - ROOMS[room(name)] - excepted.get(name, set()))
    }
    assert wrong == {}


@pytest.mark.parametrize("exception", EXCEPTIONS, ids=" imports ".join)
def test_an_exception_is_still_one(exception):
    module, imported = exception
    assert imported in rooms_imported(f"harness.{module}"), "it is mended: take its line out"
    assert imported not in ROOMS[room(module)]


def test_torch_stays_with_the_trainer_of_images():
    others = [it for it in modules() if room(short(it)) != "trainers.images" and short(it) not in TORCH_EXCEPTIONS]
    assert [module for module in others if {it.partition(".")[0] for it in imported(module)} & TORCH] == []


def spoken(module: str, forbidden: re.Pattern[str], known: str = r"(?!)") -> set[str]:
    """The forbidden words of a module, but for those that match what is known of it."""
    return {it for it in words(module) if forbidden.search(it) and not re.fullmatch(known, it, re.DOTALL)}


def test_the_core_has_no_word_of_one_trainer():
    core = [it for it in modules() if room(short(it)) in GROUND | CORE]
    assert {it: more for it in core if (more := spoken(it, WORDS, KNOWN_WORDS.get(short(it), r"(?!)")))} == {}


# Outside the core: modules that speak of images or networks, and why.
ABOUT_IMAGES: dict[str, str] = {
    "claims.report": "the claims of the report of 2022",
    "cli.conv": "a command about convolutions",
    "cli.doctor": "says whether torch and the cache of images can be used",
    "cli.summary": "a command about networks",
    "cli.visualize": "a command about networks and images",
    "report.thumbnails": "draws pictures of test examples, in plotly's words",
    "integrations.lightning": "draws orders by torch's generator",
    "tracking": "calls what MLflow should hold an image",
}
NARROWER = re.compile(r"accuracy|convnet|torch|image", re.IGNORECASE)


def test_no_room_spells_a_metric_or_speaks_of_images():
    outside = [it for it in modules() if room(short(it)) not in GROUND | CORE | {"trainers.images"}]
    silent = [it for it in outside if not {short(it), room(short(it))} & set(ABOUT_IMAGES)]
    assert {module: more for module in silent if (more := spoken(module, NARROWER))} == {}
