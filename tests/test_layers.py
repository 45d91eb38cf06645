"""Imports run downwards: facts, pure functions, the model and its adapters, programs, edges. Lazy imports count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    "errors types config config_sections config_errors settings_file faults ranks watchdog progress stop lock lines manifest memory hub "
    "config_pretrain config_file config_schema config_difference config_kind",
    "templates data sources problem_sets overlap arithmetic rewards accuracy published advantages balance packing loss metrics "
    "texts windows schedule",
    "attention model rollout learner",
    "run trainer health experience updates checkpoint saved_state resume evaluate predictions benchmark pretrain model_source engines "
    "rollout_rows row_query model_card export trackers analyze plan doctor data_check reward_check base_model",
    "report experiments integrations launch starting launch_evaluation launch_analysis spawn nodes wire display cli __main__ __init__ "
    "launch_pretraining launch_sampling",
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
SIBLINGS = {
    *(
        ("config", "config_errors"),
        ("watchdog", "ranks"),
        ("stop", "ranks"),
        ("lines", "faults"),
        ("checkpoint", "saved_state"),
        ("resume", "checkpoint"),
        ("trainer", "health"),
        ("health", "experience"),
        ("health", "run"),
        ("run", "resume"),
        ("config", "config_sections"),
        ("config", "settings_file"),
        ("config_errors", "settings_file"),
    ),
    *(("model", "attention"), ("rollout", "model"), ("learner", "model"), ("pretrain", "checkpoint"), ("trainer", "checkpoint")),
    *(("trainer", "evaluate"), ("analyze", "evaluate"), ("trainer", "run"), ("evaluate", "run"), ("pretrain", "run")),
    *(
        ("trainer", "experience"),
        ("trainer", "updates"),
        ("experience", "evaluate"),
        ("experience", "run"),
        ("run", "predictions"),
        ("run", "rollout_rows"),
    ),
    *(("benchmark", "evaluate"), ("benchmark", "predictions"), ("model_source", "base_model"), ("doctor", "plan")),
    *(
        ("export", "model_card"),
        ("export", "model_source"),
        ("analyze", "predictions"),
        ("launch_analysis", "launch_evaluation"),
        ("launch_sampling", "launch_evaluation"),
    ),
    *(
        ("cli", edge)
        for edge in (
            "report",
            "experiments",
            "launch",
            "launch_sampling",
            "launch_evaluation",
            "launch_analysis",
            "spawn",
            "nodes",
            "display",
        )
    ),
    *((name, "config") for name in ("config_file", "config_schema", "config_difference", "config_kind")),
    *(("config_file", "config_errors"), ("config_file", "settings_file"), ("config_schema", "config_pretrain")),
    *(("config_kind", "config_pretrain"), ("config_kind", "settings_file")),
    *(("config", "config_pretrain"), ("config_pretrain", "config_sections"), ("config_pretrain", "settings_file")),
    *(("texts", "data"), ("texts", "sources"), ("texts", "problem_sets"), ("texts", "arithmetic")),
    *(
        ("pretrain", "trainer"),
        ("pretrain", "updates"),
        ("launch_pretraining", "starting"),
        ("launch", "starting"),
        ("cli", "launch_pretraining"),
    ),
    ("report", "experiments"),
    *(("spawn", "nodes"), ("spawn", "wire"), ("nodes", "wire")),
    *(
        ("__main__", "cli"),
        ("data", "arithmetic"),
        ("data", "templates"),
        ("data", "sources"),
        ("data", "problem_sets"),
        ("overlap", "data"),
        ("packing", "balance"),
    ),
}
SOURCES = {path: path.relative_to(ROOT / "fastgrpo").with_suffix("").parts for path in sorted((ROOT / "fastgrpo").rglob("*.py"))}
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
LIGHT = (
    "errors",
    "types",
    "config",
    "faults",
    "cli",
    "__init__",
    "data",
    "config_pretrain",
    "texts",
    "sources",
    "problem_sets",
    "overlap",
    "data_check",
    "balance",
    "plan",
)


def imported(text: str, package: tuple[str, ...]) -> set[str]:
    """Dotted names that a module of `package` imports anywhere, relative ones made absolute; `from a import b` gives a.b."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            names |= {".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return names


def forbidden(module: str, names: set[str]) -> set[str]:
    """Modules of ours that `module`, a file or folder right below fastgrpo, imports although it lies no higher than they do."""
    ours = {name.split(".")[1] for name in names if name.startswith("fastgrpo.")} & set(LAYER) - {module, "errors"}
    return {other for other in ours if LAYER[other] >= LAYER[module] and (module, other) not in SIBLINGS}


def test_every_module_has_a_layer():
    assert {parts[0] for parts in SOURCES.values()} <= set(LAYER), "place the new module in LAYERS"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(SOURCES[path]))
def test_imports_run_downwards(path):
    names = imported(path.read_text(), ("fastgrpo", *SOURCES[path][:-1]))
    assert not forbidden(SOURCES[path][0], names)


def test_the_rule_sees_upward_sibling_lazy_and_relative_imports():
    assert forbidden("loss", imported("def f():\n    from fastgrpo.trainer import train", ("fastgrpo",))) == {"trainer"}
    assert forbidden("packing", imported("from fastgrpo import loss, types", ("fastgrpo",))) == {"loss"}
    assert forbidden("learner", imported("from ..rollout import native\nfrom . import native", ("fastgrpo", "learner"))) == {"rollout"}
    assert not forbidden("trainer", imported("import torch\nimport fastgrpo.evaluate\nfrom fastgrpo.errors import X", ("fastgrpo",)))


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_import_torch_and_triton_only(path):
    roots = {name.split(".")[0] for name in imported(path.read_text(), path.relative_to(ROOT / "kernels").parts[:-1])}
    assert roots <= {"torch", "triton", "fastgrpo_kernels"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("library", ["vllm", "deepspeed", "peft", "matplotlib", "plotly"])
def test_at_most_one_file_imports(library):
    users = [
        path for path in [*SOURCES, *KERNELS] if any(name.split(".")[0] == library for name in imported(path.read_text(), ("fastgrpo",)))
    ]
    assert len(users) <= 1


@pytest.mark.parametrize("module", [parts[0] for parts in SOURCES.values() if len(parts) == 1 and parts[0] in LIGHT])
def test_light_modules_load_neither_torch_nor_transformers(module):
    name = "fastgrpo" if module == "__init__" else f"fastgrpo.{module}"
    code = f"import sys, {name}; sys.exit(' '.join({{'torch', 'transformers'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stderr.strip() == ""
