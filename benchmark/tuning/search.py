"""The search of one method: which values are tried in which order, and which are chosen.

The first trial is the method as it is. The others are proposed by optuna's TPE sampler (Bergstra et
al., NeurIPS 2011) from the values of those before; its seed is that of the search, so that a search
that is killed proposes the same trials again and reads them from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ...engine.runtime.search_space import Choice, Interval, SearchSpace
from ..experiments.run_config import OptionError
from .trial import TrialResult

MISSING = "tuning needs optuna: pip install 'diffusion-adbench[tune]'"

MAX_STARTUP = 10
"""Trials at most that are drawn at random before the sampler learns from them."""

RunTrial = Callable[[Mapping[str, Any]], TrialResult]
OnTrial = Callable[[int, Mapping[str, Any], TrialResult], None]


@dataclass
class Search:
    """What a search tried and chose.

    chosen: values by argument; empty where nothing beats the method as it is
    value: of the best trial            default: of the method as it is; None where that failed
    trials: how many were run           failed: of them, how many gave no value
    results: of all trials, in order

    >>> search = Search()
    >>> search.add({"lr": 0.1}, TrialResult(0.5))
    >>> search.add({"lr": 0.2}, TrialResult(None, reason="not finite"))
    >>> search.chosen, search.value, search.trials, search.failed
    ({'lr': 0.1}, 0.5, 2, 1)
    """

    chosen: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    default: float | None = None
    trials: int = 0
    failed: int = 0
    results: list[TrialResult] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], result: TrialResult) -> None:
        """Count a trial; of equal values the earlier one stays chosen."""
        self.trials += 1
        self.results.append(result)
        if result.value is None:
            self.failed += 1
        elif self.value is None or result.value > self.value:
            self.value, self.chosen = result.value, dict(values)


def search_seed(*names: object) -> int:
    """The seed of a search: a number of 32 bits from the names of what is searched.

    >>> search_seed("anoddpm", "brats", 0) == search_seed("anoddpm", "brats", 0)
    True
    """
    digest = blake2b("/".join(map(str, names)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def search(
    space: SearchSpace,
    defaults: Mapping[str, Any],
    trials: int,
    seed: int,
    run_trial: RunTrial,
    on_trial: OnTrial = lambda number, values, result: None,
) -> Search:
    """Run a number of trials over a space and return what they gave.

    defaults: the method's values of the space's arguments, tried first
    run_trial: values by argument -> what the trial gave
    on_trial: called after each trial with its number, from 1, its values and its result
    Raises OptionError where optuna is not installed.

    >>> run = lambda values: TrialResult(-(values.get("x", 0.0) - 0.5) ** 2)
    >>> result = search({"x": Interval(0.0, 1.0)}, {"x": 0.0}, 12, 0, run)
    >>> result.trials, result.default, abs(result.chosen["x"] - 0.5) < 0.2
    (12, -0.25, True)
    """
    optuna = _optuna()
    startup = min(MAX_STARTUP, max(1, trials // 2))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: _distribution(optuna, part) for name, part in space.items()}
    outcome = Search()
    result = run_trial({})
    outcome.add({}, result)
    outcome.default = result.value
    on_trial(1, {}, result)
    if result.value is not None and all(defaults[name] in part for name, part in space.items()):
        study.add_trial(
            optuna.trial.create_trial(
                params={name: defaults[name] for name in space},
                distributions=distributions,
                value=result.value,
            )
        )
    for number in range(2, trials + 1):
        trial = study.ask(distributions)
        values = dict(trial.params)
        result = run_trial(values)
        outcome.add(values, result)
        if result.value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, result.value)
        on_trial(number, values, result)
    return outcome


def _distribution(optuna: Any, part: Interval | Choice) -> Any:
    if isinstance(part, Choice):
        return optuna.distributions.CategoricalDistribution(part.values)
    if part.is_integer:
        return optuna.distributions.IntDistribution(int(part.low), int(part.high), log=part.log)
    return optuna.distributions.FloatDistribution(part.low, part.high, log=part.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise OptionError(MISSING) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
