"""`fastgrpo pretrain`."""

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


def pretrain(
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
    """Train a model further on plain text, before reinforcement learning. Without arguments: the recipe `tiny-text`, on CPU.

    The result is a model for `fastgrpo train model=RUN/checkpoints/latest`.
    """
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.nodes import Nodes

    resolved = resolve(with_settings_of(resume, settings), PretrainConfig)

    def check_all(ranks: int) -> None:
        from fastgrpo.launch_pretraining import check

        check(resolved.config)

    start_ranks(rank_arguments("pretrain", settings, resume, allow_changes, as_json), gpus, Nodes(nodes, node, meet, patience), check_all)
    from fastgrpo.display import PRETRAINING, closing_losses
    from fastgrpo.launch_pretraining import launch_pretraining

    carry_out(launch_pretraining, resolved, resume, allow_changes, PRETRAINING, closing_losses, as_json)
