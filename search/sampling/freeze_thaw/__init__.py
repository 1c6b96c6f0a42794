"""The freeze-thaw search: a Gaussian process over learning curves that pauses and resumes trials.

    trial curves ──encode──▶ CurveModel ──choose──▶ a paused trial to resume, or a new one
                                        ──propose──▶ the configuration of a new trial

It knows no store and no Optuna: trials come in as `TrialCurve`s, and decisions go out.
References: Swersky, Snoek and Adams, Freeze-thaw Bayesian optimization (2014); Jones et al.,
Efficient global optimization (1998).
"""
