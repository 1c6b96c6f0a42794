"""Language of a study: configurations, parameters, records and errors, all plain data.

The names below are the public ones. They are imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spaces.config import (
        LossConfig,
        MetricConfig,
        OptimizerConfig,
        ScheduleConfig,
        Stage,
        TrialConfig,
        WeightsConfig,
    )
    from spaces.errors import (
        ConfigError,
        DataError,
        DeviceError,
        InputError,
        LauncherError,
        OutOfMemoryError,
        RecordsError,
        SearchError,
        StoreError,
        StudyError,
        TrialFailedError,
        UnusedHyperparameterError,
    )
    from spaces.frozen import Frozen
    from spaces.loader import load_study, shipped_studies
    from spaces.parameters import Choice, FloatRange, IntRange
    from spaces.record_json import make_record
    from spaces.recordings import (
        RecordedStudy,
        RecordedTrial,
        Recording,
        read_recording,
        write_recording,
    )
    from spaces.records import ClassCounts, EpochRecord, Evidence, TestScore
    from spaces.study import PrunerConfig, SamplerConfig, StudySpec
    from spaces.thresholds import SignalsConfig
else:
    from spaces.lazy_exports import lazy_exports

    __getattr__ = lazy_exports(
        __name__,
        {
            "spaces.config": (
                "LossConfig",
                "MetricConfig",
                "OptimizerConfig",
                "ScheduleConfig",
                "Stage",
                "TrialConfig",
                "WeightsConfig",
            ),
            "spaces.errors": (
                "ConfigError",
                "DataError",
                "DeviceError",
                "InputError",
                "LauncherError",
                "OutOfMemoryError",
                "RecordsError",
                "SearchError",
                "StoreError",
                "StudyError",
                "TrialFailedError",
                "UnusedHyperparameterError",
            ),
            "spaces.frozen": ("Frozen",),
            "spaces.loader": ("load_study", "shipped_studies"),
            "spaces.parameters": ("Choice", "FloatRange", "IntRange"),
            "spaces.record_json": ("make_record",),
            "spaces.recordings": (
                "RecordedStudy",
                "RecordedTrial",
                "Recording",
                "read_recording",
                "write_recording",
            ),
            "spaces.records": ("ClassCounts", "EpochRecord", "Evidence", "TestScore"),
            "spaces.study": ("PrunerConfig", "SamplerConfig", "StudySpec"),
            "spaces.thresholds": ("SignalsConfig",),
        },
    )

__all__ = [
    "Choice",
    "ClassCounts",
    "ConfigError",
    "DataError",
    "DeviceError",
    "EpochRecord",
    "Evidence",
    "FloatRange",
    "Frozen",
    "InputError",
    "IntRange",
    "LauncherError",
    "LossConfig",
    "MetricConfig",
    "OptimizerConfig",
    "OutOfMemoryError",
    "PrunerConfig",
    "RecordedStudy",
    "RecordedTrial",
    "Recording",
    "RecordsError",
    "SamplerConfig",
    "ScheduleConfig",
    "SearchError",
    "SignalsConfig",
    "Stage",
    "StoreError",
    "StudyError",
    "StudySpec",
    "TestScore",
    "TrialConfig",
    "TrialFailedError",
    "UnusedHyperparameterError",
    "WeightsConfig",
    "load_study",
    "make_record",
    "read_recording",
    "shipped_studies",
    "write_recording",
]
