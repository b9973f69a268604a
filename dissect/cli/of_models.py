"""The command about models."""

from __future__ import annotations

import tyro

from dissect.base.errors import DissectError
from dissect.cli.flags import OfLoading


def models(options: OfLoading, model: tyro.conf.Positional[str | None] = None) -> None:
    """List the models known by name, and which of them are on this machine; or say what a model is loaded as.

    That reads its config and no weights: the class it is loaded as, and which sites it has.

    Args:
        options: How it is loaded.
        model: A known name, a hub id or a folder.
    """
    from dataclasses import replace

    from dissect.models.describe import describe_model
    from dissect.models.find import find_model
    from dissect.models.names import known_models
    from dissect.models.options import LoadOptions

    how = LoadOptions(**vars(options))
    if model is not None:
        try:
            source = find_model(model, how)
        except DissectError:
            if how.bridge is not None:
                raise
            source = find_model(model, replace(how, bridge=True))  # or else its error, which says more
        print(describe_model(source))
        return
    if how != LoadOptions():
        raise DissectError("options of loading are for one model, such as dissect models NAME_OR_FOLDER --bridge")
    for known in known_models():
        print(f"{known.name:<16} {'cached' if known.cached else '-':<8} {known.source}")
    print("\nor any hub id (owner/name), or any local transformers folder: dissect models NAME_OR_FOLDER says more")
