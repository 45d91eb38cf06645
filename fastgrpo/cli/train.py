"""`fastgrpo train`."""

from __future__ import annotations

from fastgrpo.cli.runs import (
    AllowChanges,
    AsJson,
    Gpus,
    Meet,
    NodeCount,
    NodeNumber,
    Patience,
    ResumeFrom,
    Settings,
    carry_out,
    rank_arguments,
    resolve,
    start_ranks,
    with_settings_of,
)


def train(
    settings: Settings = None,
    gpus: Gpus = 1,
    nodes: NodeCount = 1,
    node: NodeNumber = None,
    meet: Meet = None,
    patience: Patience = 120.0,
    resume: ResumeFrom = "never",
    allow_changes: AllowChanges = False,
    as_json: AsJson = False,
) -> None:
    """Train a model. Without arguments: the recipe `tiny`, on CPU, in minutes. It also runs under torchrun."""
    from fastgrpo.nodes import Nodes

    resolved = resolve(with_settings_of(resume, settings))

    def check_all(ranks: int) -> None:
        from fastgrpo.launch import check

        check(resolved.config, ranks)

    start_ranks(rank_arguments("train", settings, resume, allow_changes, as_json), gpus, Nodes(nodes, node, meet, patience), check_all)
    from fastgrpo.display import TRAINING, closing_table
    from fastgrpo.launch import launch

    carry_out(launch, resolved, resume, allow_changes, TRAINING, closing_table, as_json)
