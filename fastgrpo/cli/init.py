"""`fastgrpo init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastgrpo.cli.runs import complete_recipe
from fastgrpo.errors import InputError, SetupError


def init(
    recipe: Annotated[
        str, typer.Argument(help="A recipe of train or pretrain, a YAML file, or a run's directory.", autocompletion=complete_recipe)
    ],
    out: Annotated[Path | None, typer.Option(help="The file to write; RECIPE.yaml by default.")] = None,
) -> None:
    """Write a YAML file with every setting, what each means and allows, and the recipe's values. Never overwrites one."""
    from fastgrpo.config import fields_of
    from fastgrpo.config_file import commented_yaml
    from fastgrpo.config_kind import load_any

    resolved = load_any(recipe)
    out = out or Path(f"{Path(recipe).stem if recipe.endswith('.yaml') else Path(recipe).name}.yaml")
    text = commented_yaml(resolved, recipe, str(out))
    try:
        with out.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{out} exists and is left as it is: choose another with --out") from None
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror}") from error
    print(f"{out}: {len(fields_of(type(resolved.config)))} settings of {recipe}")
