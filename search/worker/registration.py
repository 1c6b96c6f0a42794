"""Registers a claimed trial with Optuna and with our store, and samples its configuration."""

from __future__ import annotations

from search.sampling.optuna_trial import OptunaTrial
from search.sampling.sampler import start_from_attributes, suggest_params
from search.worker.context import WorkerContext
from search.worker.store_retry import translating_store_errors
from spaces.errors import LeaseLostError, StoreError
from storage.rows import Claim


def register_trial(context: WorkerContext, claim: Claim) -> tuple[Claim, OptunaTrial]:
    """Register the trial with Optuna and with our store; on a sampling error release it.

    A sampling error is the study's fault, not the trial's.

    Returns:
        The claim with the trial's configuration, and Optuna's trial.

    Raises:
        LeaseLostError: when another attempt owns the trial.
        StoreError: when the database failed.
    """
    try:
        with translating_store_errors(context.store.where):
            return _bind_trial(context, claim)
    except (LeaseLostError, StoreError):
        raise
    except Exception:
        context.store.leases.release_trial(claim)
        raise


def _bind_trial(context: WorkerContext, claim: Claim) -> tuple[Claim, OptunaTrial]:
    """Sample the configuration of a new trial, or resume an earlier one.

    Optuna's trial is recorded before anything is sampled: if this worker dies now, the next one
    resumes the trial, with the preset that was meant for it.
    """
    if claim.optuna_trial_id is None:  # the store does not know this version of Optuna's tables
        trial = context.study.ask()
        trial_id = trial._trial_id  # noqa: SLF001
        claim = context.store.leases.record_optuna_trial(claim, trial.number, trial_id)
    else:
        trial = context.study.resume_trial(claim.optuna_trial_id)
    optuna_trial = OptunaTrial(
        context.study, trial, is_written_by_store=context.store.knows_optuna()
    )
    if claim.config is None:
        claim = _sample_config(context, claim, optuna_trial)
    context.study.release_connections()
    return claim, optuna_trial


def _sample_config(context: WorkerContext, claim: Claim, optuna_trial: OptunaTrial) -> Claim:
    """The claim with a sampled configuration.

    The store writes it together with Optuna's part where it knows Optuna's tables.
    """
    trial = optuna_trial.trial
    sampled = None
    if optuna_trial.is_written_by_store:
        params, sampled = context.study.sample_params(trial, context.plan)
    else:
        params = suggest_params(trial, context.plan)
    start = start_from_attributes(trial.user_attrs)
    config = context.plan.make_config(params, trial.number, start.preset, start.patch, start.seed)
    return context.store.leases.bind_trial(
        claim,
        trial.number,
        optuna_trial.id,
        config.model_dump(mode="json"),
        start.label,
        sampled,
    )
