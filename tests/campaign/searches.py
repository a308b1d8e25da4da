"""The executable model of the protocol, searched whole; and the traces that break what we do not do."""

from __future__ import annotations

from campaign.model import BREAKS, CONTROLS, HARMLESS, HOLDS, HOLDS_ALSO, MUTANTS, run_model
from campaign.report import Config, Figures, part


@part("model")
def model(config: Config) -> Figures:
    """Every interleaving of two workers in a model of the protocol, with crashes, lost answers and late requests."""
    total = Figures()
    for variant in (*HOLDS, *HARMLESS, *(() if config.quick else HOLDS_ALSO)):
        if config.wants(variant.name):
            result = run_model(variant)
            total.model_states += result.states
            total.failures += [f"model: {result}"] if result.violation else []
            config.say(str(result))
    for variant in (*MUTANTS, *BREAKS):
        if config.wants(variant.name):
            result = run_model(variant)
            total.model_states += result.states
            total.failures += [] if result.violation else [f"model: {result}, and should find a flaw"]
            config.say(str(result).partition("\n")[0])
    for variant in CONTROLS:
        if config.wants(variant.name):
            result = run_model(variant)
            total.controls[variant.name] = Figures(
                model_states=result.states, duplicates=int(result.violation == "two billable Additions")
            )
            config.say(str(result).partition("\n")[0])
    return total
