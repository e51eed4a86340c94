"""A job as work for the engine, and how the engine ended it: as an outcome, and as shown. Pure."""

from __future__ import annotations

from typing import Literal

from workers.engine.work import Completion, GenerationRequest
from workers.errors import WorkerError
from workers.wire import MAX_TEXT_CHARS, Failure, InferenceJob, Outcome


def work_of(job: InferenceJob) -> GenerationRequest:
    """Give the engine's side of a job."""
    return GenerationRequest(
        key=f"{job.order}:{job.attempt}",
        prompt=job.prompt,
        messages=job.messages,
        raw=job.raw,
        tokens=job.tokens,
        fit_tokens=job.fit_tokens,
        stop=job.stop,
        sampling=job.sampling,
        rank=job.rank,
        run_limit_s=float(job.run_limit_s),
        special=job.special,
        continues=job.continues,
        template_args=job.template_args,
        splits_reasoning=job.splits_reasoning,
    )


Result = Literal["completed", "failed", "handed_back"]


def bare_outcome(job: InferenceJob, result: Result) -> Outcome:
    """Say of an attempt no more than its result."""
    return Outcome(order=job.order, attempt=job.attempt, nonce=job.nonce, result=result)


def outcome_of(job: InferenceJob, end: Completion, took_ms: int) -> Outcome:
    """Say how the engine ended an attempt."""
    if end.reason == "handed_back":
        return bare_outcome(job, "handed_back")
    if len(end.text) > MAX_TEXT_CHARS:
        said = f"The answer has {len(end.text)} characters; at most {MAX_TEXT_CHARS} can be sent."
        failure = Failure(code="answer_too_long", message=said, permanent=True)
        return bare_outcome(job, "failed").model_copy(update={"failure": failure})
    base = {
        "order": job.order,
        "attempt": job.attempt,
        "nonce": job.nonce,
        "text": end.text,
        "prompt_tokens": end.prompt_tokens,
        "generated": end.generated,
        "reasoning": end.reasoning,
        "reasoning_tokens": end.reasoning_tokens,
        "took_ms": took_ms,
    }
    if end.reason == "failed":
        return Outcome.model_validate({**base, "result": "failed", "failure": _failure(end.error)})
    return Outcome.model_validate({**base, "result": "completed", "finish_reason": end.reason})


def shown(outcome: Outcome | None, *, void: bool) -> dict[str, str | int]:
    """Return the end of an attempt as anybody may see it: no text, and of a failure its code.

    Args:
        outcome: what goes home; None where nothing does.
        void: whether that is because the attempt counts for nothing.
    """
    if outcome is None:
        return {"status": "void", "tokens": 0} if void else not_done("claim_not_sent")
    if outcome.result == "failed":
        code = outcome.failure.code if outcome.failure is not None else "worker_error"
        return {**not_done(code), "tokens": outcome.generated}
    called_off = outcome.finish_reason in ("cancelled", "deadline")
    status = outcome.finish_reason if called_off and outcome.finish_reason else outcome.result
    return {"status": status, "tokens": outcome.generated}


def not_done(code: str) -> dict[str, str | int]:
    """Return the end of a task that failed as anybody may see it."""
    return {"status": "failed", "code": code, "tokens": 0}


def _failure(error: WorkerError | None) -> Failure:
    if error is None:
        return Failure(code="worker_error", message="The worker failed.", permanent=False)
    return Failure(
        code=error.code, message=error.message[:2000], permanent=error.permanent, data=error.data
    )
