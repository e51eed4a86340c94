"""A model of one's own: the function that `HERD_ENGINE=MODULE:FUNCTION` names makes it."""

from __future__ import annotations

from importlib import import_module

from workers.engine.work import Model
from workers.errors import SettingsError
from workers.settings import WorkerSettings


def load_own_model(settings: WorkerSettings) -> Model:
    """Return the model that the function in `HERD_ENGINE` makes of these settings.

    Raises:
        SettingsError: there is no such module or function, or its model has other slots.
        WorkerError: whatever else the function says.
    """
    module_name, _, function = settings.engine.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports what is not
        raise SettingsError(
            f"There is no module {module_name}, which HERD_ENGINE names. Put its folder on "
            "PYTHONPATH."
        ) from None
    make = getattr(module, function, None)
    if not callable(make):
        raise SettingsError(
            f"The module {module_name} has no function {function}, which HERD_ENGINE names."
        )
    model: Model = make(settings)
    if model.facts.slots != settings.slots:
        raise SettingsError(
            f"The engine of HERD_ENGINE has slots for {model.facts.slots} orders at once, but "
            f"HERD_SLOTS is {settings.slots}. Both have to be the same."
        )
    return model
