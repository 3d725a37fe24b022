"""Statistics: what the numbers of a study's cells say, and what they do not.

Everything takes the results table (a row per cell, `harness.store.load.results_table`) and gives back a frozen
dataclass, a table with a row per effect, or a sentence. Numbers are as the metric was logged; a sentence writes them
as `harness.metrics` says; which way is better is the metric's own goal. Neither the order of the rows nor that of the
labels matters; the same table gives the same numbers. No file, no database, no training: this package knows tables
only.

    values        the table as a matrix of variants by seeds; missing cells
    intervals     Student's t, BCa, Clopper-Pearson, Hodges-Lehmann
    significance  sign-flip test, t test, equivalence, Holm
    effect        what an effect is
    paired        one effect: a contrast within each seed
    resampling    joint sign flips of a family, and the statistic that is compared
    stepdown      the correction at one look: Westfall-Young
    sequential    at several looks, and beyond the horizon
    online        one proposal after the other: an e-process each, e-LOND over a stream
    evidence      which of them a family gets
    family        effects tested together: add-one, leave-one-out, path; verdicts
    between       the same effects in two study runs
    combinations  interactions, Shapley values
    examples      seeds crossed with test examples: which are gained and lost, the interval for new ones
    marginal      linear model over any combinations; the one-standard-error rule
    noise         A/A
    published     ours against a published number
    overview      means per variant, comparability
    headline      the biggest single improvement, or why there is none to name
    sentences     the report line and its kin
    wording       how p-values, seeds and missing cells are written

Seeds needed, detectable effect and prior sd take no table: they are in `harness.plan.power`.

The rules it keeps, and where:

    1  the seed is the unit; pairing by seed, its use printed    paired.measure, sentences.report_line
    2  1 seed smoke, 3 exploratory, 10 standard; seeds auto      family._verdict, power.seeds_needed, power.prior_sd
    3  mean, sd, dz, t interval; BCa beside it from 10 seeds     paired.measure, intervals
    4  exact sign-flip test; "cannot reach significance"         significance.sign_flip_p, headline.refusal
    5  one family, raw and adjusted p; exploratory               evidence.evidence, family.measure_family
    6  P(improve), Clopper-Pearson, gamma; equivalence           paired.measure, effect.is_meaningful, equivalence_p
    7  interactions, leave-one-out, Shapley values               combinations, family.leave_one_out_effects
    8  selection on validation; confirmation; simplest set       headline, sentences.confirmation_line, marginal
    9  missing cells are outcomes and are named                  effect.MissingCell, paired.measure, headline
    10 A/A                                                       noise.aa_noise_floor
    11 published numbers                                         published.compare_published
    12 the report line                                           sentences.report_line
    13 one study run, one correction over all of its designs     family.measure_families; tests/test_one_family.py,
                                                                 tests/test_report_tables.py
    14 Westfall-Young by joint sign flips                        stepdown.westfall_young; tests/test_stats_evidence.py
    15 looks are counted and share one error                     sequential, evidence; api.looking writes them
    16 racing                                                    api.racing; tests/test_racing.py
    17 confirmation is one decision, with an error budget        decision.decide, decision.confirmation_alpha
    18 missing pairs move the verdict                            family._verdict, evidence.lost_pairs, decision
    19 skew is said, with Hodges-Lehmann beside the mean         paired._skew_note, intervals.hodges_lehmann
    20 planning speaks of the test that is used                  plan.power.effective_level, seeds_from_pilots
    21 what does not vary is said; new test examples             sentences.report_line, examples.two_way_interval
    23 marginal errors by combination; the rule of one, paired   marginal; tests/test_stats_marginal.py
    24 A/A that can fail: seeds again, placebos                  api.placebos; tests/test_placebos.py
    25 a published number without a spread is one more run       published.compare_published
"""

from harness.plan.power import (
    prior_difference_sd,
    prior_sd,
    seeds_needed,
    seeds_to_reach,
    smallest_detectable_effect,
    t_power,
)
from harness.stats.combinations import factorial_interactions, interactions, shapley_values
from harness.stats.decision import Decision, confirmation_alpha, confirmation_line, decide, fresh_line
from harness.stats.effect import Contrast, Effect, MissingCell, metric_of_row
from harness.stats.family import (
    EFFECT_COLUMNS,
    VERDICTS,
    Verdict,
    effects,
    leave_one_out_effects,
    measure_family,
)
from harness.stats.headline import Headline, adjusted, biggest_improvement, refusal, why_no_claim
from harness.stats.marginal import MARGINAL_COLUMNS, SimplestChoice, marginal_effects, simplest_within_one_se
from harness.stats.noise import NoiseFloor, aa_noise_floor
from harness.stats.overview import comparability_problems, summary
from harness.stats.paired import measure, paired_effect
from harness.stats.published import PublishedComparison, compare_published
from harness.stats.sentences import noise_floor_line, published_line, report_line
from harness.stats.significance import expected_luck, holm, sign_flip_p, smallest_sign_flip_p
from harness.stats.stepdown import westfall_young
from harness.stats.values import metric_values
from harness.stats.wording import describe_seeds, format_p

__all__ = [
    "EFFECT_COLUMNS",
    "MARGINAL_COLUMNS",
    "VERDICTS",
    "Contrast",
    "Decision",
    "Effect",
    "Headline",
    "MissingCell",
    "NoiseFloor",
    "PublishedComparison",
    "SimplestChoice",
    "Verdict",
    "aa_noise_floor",
    "adjusted",
    "biggest_improvement",
    "comparability_problems",
    "compare_published",
    "confirmation_alpha",
    "confirmation_line",
    "decide",
    "describe_seeds",
    "effects",
    "expected_luck",
    "factorial_interactions",
    "format_p",
    "fresh_line",
    "holm",
    "interactions",
    "leave_one_out_effects",
    "marginal_effects",
    "measure",
    "measure_family",
    "metric_of_row",
    "metric_values",
    "noise_floor_line",
    "paired_effect",
    "prior_difference_sd",
    "prior_sd",
    "published_line",
    "refusal",
    "report_line",
    "seeds_needed",
    "seeds_to_reach",
    "shapley_values",
    "sign_flip_p",
    "simplest_within_one_se",
    "smallest_detectable_effect",
    "smallest_sign_flip_p",
    "summary",
    "t_power",
    "westfall_young",
    "why_no_claim",
]
